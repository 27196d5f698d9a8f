//! One question of our own with one value, which never becomes part of its text.

use bytes::BufMut;

use super::{Server, ServerFailure};
use crate::wire::Fields;
use crate::wire::backend::ServerError;
use crate::wire::frontend::{Parse, cstr, message, write_bare};

/// A row, as text; NULL is nothing.
pub(crate) type Row = Vec<Option<String>>;

impl Server {
    /// The rows of `sql`, in which `value` is `$1`. After a refusal the connection is as good as
    /// before.
    ///
    /// # Cancel safety
    /// None: used where the connection is dropped with the future.
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
        self.send().await?;
        let mut answer = Ok(Vec::new());
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
                    if let Ok(rows) = &mut answer {
                        rows.push(row);
                    }
                }
                _ => {}
            }
        }
    }
}
