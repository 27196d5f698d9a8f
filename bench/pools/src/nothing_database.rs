//! A database without statements, rows or values, as far as sqlx wants to know of one before
//! its pool lends a connection. Pings succeed at once; nothing else is ever called.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use either::Either;
use log::LevelFilter;
use sqlx_core::Error;
use sqlx_core::arguments::{Arguments, IntoArguments};
use sqlx_core::column::{Column, ColumnIndex};
use sqlx_core::connection::{ConnectOptions, Connection};
use sqlx_core::database::Database;
use sqlx_core::encode::Encode;
use sqlx_core::error::BoxDynError;
use sqlx_core::from_row::FromRow;
use sqlx_core::query::Query;
use sqlx_core::query_as::QueryAs;
use sqlx_core::query_scalar::QueryScalar;
use sqlx_core::row::Row;
use sqlx_core::sql_str::SqlStr;
use sqlx_core::statement::Statement;
use sqlx_core::transaction::{Transaction, TransactionManager};
use sqlx_core::type_info::TypeInfo;
use sqlx_core::types::Type;
use sqlx_core::value::{Value, ValueRef};
use url::Url;

/// The database.
#[derive(Debug)]
pub struct Nothing;

impl Database for Nothing {
    type Connection = Link;
    type TransactionManager = Nothing;
    type Row = Never;
    type QueryResult = Done;
    type Column = Never;
    type TypeInfo = Never;
    type Value = Never;
    type ValueRef<'r> = Never;
    type Arguments = Done;
    type ArgumentBuffer = ();
    type Statement = Never;

    const NAME: &'static str = "nothing";
    const URL_SCHEMES: &'static [&'static str] = &["nothing"];
}

/// A connection.
pub struct Link;

/// How to connect: there is nothing to say.
#[derive(Debug, Clone)]
pub struct Options;

/// Something that ended well.
#[derive(Default)]
pub struct Done;

/// What never exists here.
#[derive(Debug, Clone, PartialEq)]
pub struct Never(Infallible);

impl Never {
    fn absurd(&self) -> ! {
        match self.0 {}
    }
}

impl Connection for Link {
    type Database = Nothing;
    type Options = Options;

    async fn close(self) -> Result<(), Error> {
        Ok(())
    }

    async fn close_hard(self) -> Result<(), Error> {
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn begin(&mut self) -> Result<Transaction<'_, Nothing>, Error> {
        Transaction::begin(self, None).await
    }

    fn shrink_buffers(&mut self) {}

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn should_flush(&self) -> bool {
        false
    }
}

impl FromStr for Options {
    type Err = Error;

    fn from_str(_: &str) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl ConnectOptions for Options {
    type Connection = Link;

    fn from_url(_: &Url) -> Result<Self, Error> {
        Ok(Self)
    }

    async fn connect(&self) -> Result<Link, Error> {
        Ok(Link)
    }

    fn log_statements(self, _: LevelFilter) -> Self {
        self
    }

    fn log_slow_statements(self, _: LevelFilter, _: Duration) -> Self {
        self
    }
}

impl TransactionManager for Nothing {
    type Database = Nothing;

    async fn begin(_: &mut Link, _: Option<SqlStr>) -> Result<(), Error> {
        Ok(())
    }

    async fn commit(_: &mut Link) -> Result<(), Error> {
        Ok(())
    }

    async fn rollback(_: &mut Link) -> Result<(), Error> {
        Ok(())
    }

    fn start_rollback(_: &mut Link) {}

    fn get_transaction_depth(_: &Link) -> usize {
        0
    }
}

impl Extend<Done> for Done {
    fn extend<T: IntoIterator<Item = Self>>(&mut self, _: T) {}
}

impl Arguments for Done {
    type Database = Nothing;

    fn reserve(&mut self, _: usize, _: usize) {}

    fn add<'t, T: Encode<'t, Nothing> + Type<Nothing>>(&mut self, _: T) -> Result<(), BoxDynError> {
        Ok(())
    }

    fn len(&self) -> usize {
        0
    }
}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.absurd()
    }
}

impl Row for Never {
    type Database = Nothing;

    fn columns(&self) -> &[Self] {
        self.absurd()
    }

    fn try_get_raw<I: ColumnIndex<Self>>(&self, _: I) -> Result<Self, Error> {
        self.absurd()
    }
}

impl Column for Never {
    type Database = Nothing;

    fn ordinal(&self) -> usize {
        self.absurd()
    }

    fn name(&self) -> &str {
        self.absurd()
    }

    fn type_info(&self) -> &Self {
        self.absurd()
    }
}

impl TypeInfo for Never {
    fn is_null(&self) -> bool {
        self.absurd()
    }

    fn name(&self) -> &str {
        self.absurd()
    }
}

impl Value for Never {
    type Database = Nothing;

    fn as_ref(&self) -> Self {
        self.absurd()
    }

    fn type_info(&self) -> Cow<'_, Self> {
        self.absurd()
    }

    fn is_null(&self) -> bool {
        self.absurd()
    }
}

impl ValueRef<'_> for Never {
    type Database = Nothing;

    fn to_owned(&self) -> Self {
        self.absurd()
    }

    fn type_info(&self) -> Cow<'_, Self> {
        self.absurd()
    }

    fn is_null(&self) -> bool {
        self.absurd()
    }
}

impl Statement for Never {
    type Database = Nothing;

    fn into_sql(self) -> SqlStr {
        self.absurd()
    }

    fn sql(&self) -> &SqlStr {
        self.absurd()
    }

    fn parameters(&self) -> Option<Either<&[Self], usize>> {
        self.absurd()
    }

    fn columns(&self) -> &[Self] {
        self.absurd()
    }

    fn query(&self) -> Query<'_, Nothing, Done> {
        self.absurd()
    }

    fn query_with<A: IntoArguments<Nothing>>(&self, _: A) -> Query<'_, Nothing, A> {
        self.absurd()
    }

    fn query_as<O: for<'r> FromRow<'r, Self>>(&self) -> QueryAs<'_, Nothing, O, Done> {
        self.absurd()
    }

    fn query_as_with<'s, O, A>(&'s self, _: A) -> QueryAs<'s, Nothing, O, A>
    where
        O: for<'r> FromRow<'r, Self>,
        A: IntoArguments<Nothing>,
    {
        self.absurd()
    }

    fn query_scalar<O>(&self) -> QueryScalar<'_, Nothing, O, Done>
    where
        (O,): for<'r> FromRow<'r, Self>,
    {
        self.absurd()
    }

    fn query_scalar_with<'s, O, A>(&'s self, _: A) -> QueryScalar<'s, Nothing, O, A>
    where
        (O,): for<'r> FromRow<'r, Self>,
        A: IntoArguments<Nothing>,
    {
        self.absurd()
    }
}
