//! What the console shows: views with typed columns, and rows of cells.
//!
//! One list of views is what SHOW finds, SHOW HELP names and the documentation lists, so that
//! they cannot disagree.

/// What a column holds, as PostgreSQL's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `text`.
    Text,
    /// `int4`.
    Int,
    /// `int8`.
    Big,
    /// `numeric`, whole numbers only.
    Numeric,
    /// `float8`.
    Float,
    /// `bytea`.
    Bytes,
}

impl Kind {
    /// The OID of the type (`pg_type.dat`).
    pub(crate) fn oid(self) -> u32 {
        match self {
            Self::Text => 25,
            Self::Int => 23,
            Self::Big => 20,
            Self::Numeric => 1700,
            Self::Float => 701,
            Self::Bytes => 17,
        }
    }

    /// The length of a value in bytes, -1 where it varies.
    pub(crate) fn length(self) -> i16 {
        match self {
            Self::Int => 4,
            Self::Big | Self::Float => 8,
            Self::Text | Self::Numeric | Self::Bytes => -1,
        }
    }

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "int4",
            Self::Big => "int8",
            Self::Numeric => "numeric",
            Self::Float => "float8",
            Self::Bytes => "bytea",
        }
    }
}

/// A column of a view.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What that means.
    pub meaning: &'static str,
}

/// Who may look at a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `stats_users` and `admin_users`.
    Stats,
    /// `admin_users`.
    Admin,
}

/// Something that SHOW shows.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Its name, in lower case.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// What may stand behind its name, as in `n`; empty: nothing.
    pub argument: &'static str,
    /// Who may look at it.
    pub reader: Reader,
    /// Its columns, in their order.
    pub columns: &'static [Column],
}

/// A value. Numbers are shown as the column's type has them.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// SQL's NULL.
    Null,
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A number with a fraction.
    Float(f64),
}

impl Cell {
    /// As text; `None` is NULL.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&std::sync::Arc<str>> for Cell {
    fn from(text: &std::sync::Arc<str>) -> Self {
        Self::Text(text.to_string())
    }
}

impl From<u16> for Cell {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<i32> for Cell {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl<T> From<Option<T>> for Cell
where
    Self: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::from)
    }
}

/// A row: a cell for each column, in their order.
pub type Row = Vec<Cell>;

/// A row out of values of different types.
#[macro_export]
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::console::Cell::from($value)),*]
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_too_large_for_its_type_is_the_largest() {
        assert_eq!(Cell::from(u64::MAX), Cell::Number(i64::MAX));
        assert_eq!(Cell::from(None::<u32>), Cell::Null);
    }
}
