//! How a request names itself: a comment at the end of its statements, as sqlcommenter
//! writes it (google.github.io/sqlcommenter/spec). The same text goes to PostgreSQL and to
//! Forebay; PostgreSQL does not care.

use forebay_seam::random::Dice;

/// The name of one request. Who tries it again keeps the label.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    route: &'static str,
    traceparent: String,
}

impl Label {
    /// A new request of the feature `route`.
    pub(crate) fn new(route: &'static str, dice: &mut Dice) -> Self {
        // W3C Trace Context, section 3.2.2; neither id may be zero.
        let (high, low, span) = (dice.next_u64(), dice.next_u64() | 1, dice.next_u64() | 1);
        Self { route, traceparent: format!("00-{high:016x}{low:016x}-{span:016x}-01") }
    }

    /// `statement`, named as one of this request.
    pub(crate) fn on(&self, statement: &str) -> String {
        let Self { route, traceparent } = self;
        format!("{statement} /*route='{route}',traceparent='{traceparent}'*/")
    }

    /// The same for HTTP calls.
    pub(crate) fn traceparent(&self) -> &str {
        &self.traceparent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_carries_its_request_as_sqlcommenter_writes_it() {
        let label = Label::new("ask", &mut Dice::new(1));
        let text = label.on("SELECT 1");
        let traceparent = label.traceparent();
        assert_eq!(text, format!("SELECT 1 /*route='ask',traceparent='{traceparent}'*/"));
        assert_eq!((traceparent.len(), traceparent.split('-').count()), (55, 4));
        assert_ne!(Label::new("ask", &mut Dice::new(2)).traceparent(), traceparent);
    }
}
