//! Answers as messages: what the columns are, rows, notices, and the end of a command.
//!
//! Knows no views; a cell is written as its column's type and the format that the client asked
//! for ("Message Formats, RowDescription" and "DataRow").

use bytes::{BufMut, BytesMut};

use super::table::{Cell, Column, Kind};
use crate::wire::frontend::{cstr, message};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

/// The formats of all columns of a portal, as its Bind names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Formats(pub(super) Vec<Format>);

impl Formats {
    /// None: all text; one: it is that of all; else each has its own.
    fn of(&self, column: usize) -> Format {
        match self.0.as_slice() {
            [] => Format::Text,
            [all] => *all,
            each => each.get(column).copied().unwrap_or(Format::Text),
        }
    }
}

pub(super) fn row_description(out: &mut BytesMut, columns: &[Column], formats: &Formats) {
    message(out, b'T', |out| {
        out.put_u16(count(columns.len()));
        for (number, column) in columns.iter().enumerate() {
            cstr(out, column.name.as_bytes());
            // Of no table, and no column of one.
            out.put_u32(0);
            out.put_u16(0);
            out.put_u32(column.kind.oid());
            out.put_i16(column.kind.length());
            out.put_i32(-1);
            out.put_u16(match formats.of(number) {
                Format::Text => 0,
                Format::Binary => 1,
            });
        }
    });
}

pub(super) fn data_row(out: &mut BytesMut, columns: &[Column], formats: &Formats, row: &[Cell]) {
    message(out, b'D', |out| {
        out.put_u16(count(columns.len()));
        for (number, column) in columns.iter().enumerate() {
            let cell = row.get(number).unwrap_or(&Cell::Null);
            match formats.of(number) {
                Format::Text => value(out, cell.text().as_deref().map(str::as_bytes)),
                Format::Binary => value(out, binary(column.kind, cell).as_deref()),
            }
        }
    });
}

fn count(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn value(out: &mut BytesMut, value: Option<&[u8]>) {
    let length = value.and_then(|value| i32::try_from(value.len()).ok());
    out.put_i32(length.unwrap_or(-1));
    if let (Some(value), Some(_)) = (value, length) {
        out.put_slice(value);
    }
}

fn binary(kind: Kind, cell: &Cell) -> Option<Vec<u8>> {
    match (kind, cell) {
        (_, Cell::Null) => None,
        (Kind::Int, Cell::Number(number)) => {
            let number = i32::try_from(*number).unwrap_or(i32::MAX);
            Some(number.to_be_bytes().to_vec())
        }
        (Kind::Big, Cell::Number(number)) => Some(number.to_be_bytes().to_vec()),
        (Kind::Float, Cell::Float(number)) => Some(number.to_be_bytes().to_vec()),
        (Kind::Numeric, Cell::Number(number)) => Some(numeric(*number)),
        (Kind::Text | Kind::Bytes, cell) => cell.text().map(String::into_bytes),
        // No column is filled with what it does not hold: a test goes over all of them.
        (_, Cell::Text(_) | Cell::Number(_) | Cell::Float(_)) => None,
    }
}

/// `numeric_send`: digits of base 10,000, the weight of the first, sign, scale.
fn numeric(number: i64) -> Vec<u8> {
    let mut rest = number.unsigned_abs();
    let mut digits = Vec::new();
    while rest > 0 {
        digits.push(u16::try_from(rest % 10_000).unwrap_or(0));
        rest /= 10_000;
    }
    digits.reverse();
    let length = u16::try_from(digits.len()).unwrap_or(0);
    let mut out = Vec::new();
    out.put_u16(length);
    out.put_u16(length.saturating_sub(1));
    out.put_u16(if number < 0 { 0x4000 } else { 0 });
    out.put_u16(0);
    digits.into_iter().for_each(|digit| out.put_u16(digit));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_written_as_numeric_send_does() {
        assert_eq!(numeric(0), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(numeric(-5), [0, 1, 0, 0, 0x40, 0, 0, 0, 0, 5]);
        assert_eq!(numeric(10_000), [0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn one_format_is_that_of_all_columns() {
        let formats = Formats(vec![Format::Binary]);
        assert_eq!((formats.of(0), formats.of(7)), (Format::Binary, Format::Binary));
        assert_eq!(Formats::default().of(3), Format::Text);
    }
}
