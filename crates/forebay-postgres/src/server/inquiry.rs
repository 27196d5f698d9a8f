//! Questions of our own, and the rows that answer them. A value of a question never becomes part
//! of its text. After a refusal the connection is as good as before.
//!
//! Cancel safety: none, so they are asked where the connection is dropped with the future.

use bytes::BufMut;

use super::{Server, ServerFailure};
use crate::wire::Fields;
use crate::wire::backend::ServerError;
use crate::wire::frontend::{Parse, cstr, message, write_bare, write_query};

/// A row, as text; NULL is nothing.
pub(crate) type Row = Vec<Option<String>>;

impl Server {
    /// The rows of `sql`, in which `value` is `$1`.
    pub(crate) async fn inquire(
        &mut self,
        sql: &str,
        value: &str,
    ) -> Result<Vec<Row>, ServerFailure> {
        Parse { name: b"", text: sql.as_bytes(), types: &[0, 0] }.write(&mut self.outbox);
        message(&mut self.outbox, b'B', |out| {
            cstr(out, b"");
            cstr(out, b"");
            // All values as text, and there is one.
            out.put_slice(&[0, 0, 0, 1]);
            out.put_i32(i32::try_from(value.len()).unwrap_or(0));
            out.put_slice(value.as_bytes());
            // All columns as text.
            out.put_slice(&[0, 0]);
        });
        message(&mut self.outbox, b'E', |out| {
            cstr(out, b"");
            out.put_i32(0);
        });
        write_bare(&mut self.outbox, b'S');
        let mut rows = Vec::new();
        self.rows(|row| rows.push(row)).await?;
        Ok(rows)
    }

    /// The rows of `sql`; what is NULL is empty.
    pub(super) async fn ask_for_rows(
        &mut self,
        sql: &str,
        mut take: impl FnMut(Vec<String>),
    ) -> Result<(), ServerFailure> {
        write_query(&mut self.outbox, sql);
        self.rows(|row| take(row.into_iter().map(Option::unwrap_or_default).collect())).await
    }

    /// The first column of the only row of `sql`.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Option<String>, ServerFailure> {
        let mut answer = None;
        self.ask_for_rows(sql, |row| answer = row.into_iter().next()).await?;
        Ok(answer)
    }

    /// Sends what is due, and gives away the rows of its answer.
    async fn rows(&mut self, mut take: impl FnMut(Row)) -> Result<(), ServerFailure> {
        self.send().await?;
        let mut answer = Ok(());
        loop {
            let (tag, body) = self.receive().await?;
            let mut fields = Fields::new(&body);
            match tag {
                b'Z' => return answer,
                b'S' => self.take_parameter(&body)?,
                b'E' => answer = Err(ServerFailure::Refused(ServerError::read(&body))),
                b'D' => {
                    let mut row = Row::new();
                    for _ in 0..fields.u16()? {
                        row.push(match usize::try_from(fields.i32()?) {
                            Ok(length) => {
                                Some(String::from_utf8_lossy(fields.bytes(length)?).into_owned())
                            }
                            Err(_) => None,
                        });
                    }
                    take(row);
                }
                _ => {}
            }
        }
    }
}
