//! The grammar of expressions ("Value Expressions"), without precedence: which names are called,
//! which are types and which operators work, implied ones as well.

use super::Refusal;
use super::lexemes::Lexeme;
use super::query::{Read, Reader, is_reserved};

/// Types that the grammar itself knows: never looked up by name ("Data Types").
const TYPES: &[&str] = &[
    "bigint",
    "bit",
    "boolean",
    "char",
    "character",
    "dec",
    "decimal",
    "double",
    "float",
    "int",
    "integer",
    "interval",
    "national",
    "nchar",
    "numeric",
    "real",
    "smallint",
    "time",
    "timestamp",
    "varchar",
];

/// Values without parentheses that the grammar itself knows. Those of the clock move on when a
/// transaction is begun again; that is documented.
const VALUES: &[&str] = &[
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "system_user",
    "user",
];

/// Words that the grammar reads as parts of an expression when a parenthesis follows, in a way
/// of their own that is not understood here.
const NOT_UNDERSTOOD: &[&str] = &[
    "setof",
    "treat",
    "xmlelement",
    "xmlforest",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
    "xmlconcat",
    "xmlattributes",
    "xmlnamespaces",
    "xmlexists",
    "json_table",
    "merge_action",
];

impl Reader<'_> {
    /// An expression: operands with operators between them.
    pub(super) fn expression(&mut self) -> Read {
        self.within(|reader| {
            loop {
                reader.operand()?;
                if !reader.infix()? {
                    return Ok(());
                }
            }
        })
    }

    /// Expressions in parentheses, one at least.
    pub(super) fn list(&mut self) -> Read {
        self.need(b'(')?;
        self.expressions(b')')
    }

    /// Expressions up to the mark `end`.
    fn expressions(&mut self, end: u8) -> Read {
        loop {
            self.expression()?;
            if !self.take(b',') {
                return self.need(end);
            }
        }
    }

    /// What connects an operand with the next one; false at the end of the expression.
    fn infix(&mut self) -> Read<bool> {
        if let Some(Lexeme::Operator(operator)) = self.peek() {
            let operator = *operator;
            self.skip(1);
            self.named.operator(None, operator);
            self.quantified()?;
            return Ok(true);
        }
        if self.is_word("operator") && self.after(1) == Some(&Lexeme::Mark(b'(')) {
            self.qualified_operator()?;
            self.quantified()?;
            return Ok(true);
        }
        if self.take_any(&["and", "or", "overlaps", "escape"]) {
            return Ok(true);
        }
        if self.is_word("at") && self.after(1).is_some_and(|next| next.is("time")) {
            self.skip(2);
            self.need_word("zone")?;
            return Ok(true);
        }
        if self.is_word("not") {
            let negates = ["in", "like", "ilike", "similar", "between"];
            let next = self.after(1);
            if !negates.iter().any(|word| next.is_some_and(|next| next.is(word))) {
                return Err(Refusal::NotUnderstood);
            }
            self.skip(1);
        }
        if self.take_word("in") {
            self.implies(&["=", "<>"]);
            return Ok(true);
        }
        if self.take_word("like") {
            self.implies(&["~~", "!~~"]);
            self.quantified()?;
            return Ok(true);
        }
        if self.take_word("ilike") {
            self.implies(&["~~*", "!~~*"]);
            self.quantified()?;
            return Ok(true);
        }
        if self.take_word("similar") {
            self.need_word("to")?;
            self.implies(&["~", "!~"]);
            return Ok(true);
        }
        if self.take_word("between") {
            self.take_any(&["symmetric", "asymmetric"]);
            self.implies(&["<", "<=", ">", ">="]);
            return Ok(true);
        }
        if self.take_any(&["isnull", "notnull"]) {
            return self.infix();
        }
        if self.take_word("is") {
            self.take_word("not");
            if self.take_any(&["null", "true", "false", "unknown"]) {
                return self.infix();
            }
            self.need_word("distinct")?;
            self.need_word("from")?;
            self.implies(&["="]);
            return Ok(true);
        }
        Ok(false)
    }

    fn implies(&mut self, operators: &[&str]) {
        for operator in operators {
            self.named.operator(None, operator);
        }
    }

    /// `ANY`, `ALL` and `SOME` may stand behind an operator; what they stand before is an
    /// operand in parentheses.
    fn quantified(&mut self) -> Read {
        if self.take_any(&["any", "all", "some"]) && !self.is(b'(') {
            return Err(Refusal::NotUnderstood);
        }
        Ok(())
    }

    /// `OPERATOR(schema.+)`
    fn qualified_operator(&mut self) -> Read {
        self.skip(2);
        let mut schema = None;
        while !matches!(self.peek(), Some(Lexeme::Operator(_))) {
            if schema.is_some() {
                return Err(Refusal::NotUnderstood);
            }
            schema = Some(self.name()?);
            self.need(b'.')?;
        }
        if let Some(Lexeme::Operator(operator)) = self.peek() {
            let operator = *operator;
            self.named.operator(schema, operator);
        }
        self.skip(1);
        self.need(b')')
    }

    /// One operand with what stands before and behind it.
    pub(super) fn operand(&mut self) -> Read {
        loop {
            if let Some(Lexeme::Operator(operator)) = self.peek() {
                let operator = *operator;
                self.skip(1);
                self.named.operator(None, operator);
            } else if self.is_word("operator") && self.after(1) == Some(&Lexeme::Mark(b'(')) {
                self.qualified_operator()?;
            } else if !self.take_word("not") {
                break;
            }
        }
        self.within(Self::primary)?;
        loop {
            if self.peek() == Some(&Lexeme::Cast) {
                self.skip(1);
                self.type_name()?;
            } else if self.take(b'[') {
                self.subscript()?;
            } else if self.take(b'.') {
                if self.peek() == Some(&Lexeme::Operator("*")) {
                    self.skip(1);
                } else {
                    let name = self.label()?;
                    self.named.attribute(name)?;
                }
            } else if self.take_word("collate") {
                self.qualified()?;
            } else {
                return Ok(());
            }
        }
    }

    /// `[1]`, `[1:2]`, `[:]`, from behind the bracket.
    fn subscript(&mut self) -> Read {
        if !self.is(b':') {
            self.expression()?;
        }
        if self.take(b':') && !self.is(b']') {
            self.expression()?;
        }
        self.need(b']')
    }

    fn primary(&mut self) -> Read {
        let word = match self.peek() {
            Some(Lexeme::Text | Lexeme::Number | Lexeme::Parameter) => {
                self.skip(1);
                return Ok(());
            }
            Some(Lexeme::Mark(b'(')) => {
                self.skip(1);
                return self.parenthesis();
            }
            Some(Lexeme::Word(word)) => word.to_ascii_lowercase(),
            Some(Lexeme::Quoted(_)) => return self.named_operand(),
            _ => return Err(Refusal::NotUnderstood),
        };
        let calls = self.after(1) == Some(&Lexeme::Mark(b'('));
        match word.as_str() {
            "null" | "true" | "false" => {
                self.skip(1);
                Ok(())
            }
            "case" => self.case(),
            "exists" if calls => {
                self.skip(2);
                self.query()?;
                self.need(b')')
            }
            "array" => {
                self.skip(1);
                self.array()
            }
            "row" | "coalesce" | "greatest" | "least" | "grouping" if calls => {
                self.skip(2);
                if self.take(b')') { Ok(()) } else { self.expressions(b')') }
            }
            "nullif" if calls => {
                self.implies(&["="]);
                self.skip(1);
                self.list()
            }
            "cast" if calls => {
                self.skip(2);
                self.expression()?;
                self.need_word("as")?;
                self.type_name()?;
                self.need(b')')
            }
            "extract" | "position" | "substring" | "overlay" | "trim" | "normalize" if calls => {
                self.special(&word)
            }
            "current_schema" if calls => self.named_operand(),
            word if VALUES.contains(&word) => {
                self.skip(1);
                // A precision.
                if self.is(b'(') { self.list() } else { Ok(()) }
            }
            word if NOT_UNDERSTOOD.contains(&word) && calls => Err(Refusal::NotUnderstood),
            word if TYPES.contains(&word) && self.is_typed_literal() => {
                self.type_name()?;
                self.skip(1);
                let is_interval = word == "interval";
                while is_interval && self.take_any(INTERVAL) {}
                Ok(())
            }
            _ => self.named_operand(),
        }
    }

    /// Does a type of the grammar's own stand here before a string?
    fn is_typed_literal(&self) -> bool {
        const PARTS: [&str; 7] =
            ["with", "without", "time", "zone", "precision", "varying", "character"];
        let behind = (1..6).find(|n| {
            let is_part = |lexeme: &Lexeme<'_>| PARTS.iter().any(|part| lexeme.is(part));
            !self.after(*n).is_some_and(is_part)
        });
        behind.is_some_and(|n| self.after(n) == Some(&Lexeme::Text))
    }

    /// From behind `(`: a query, a value or a row.
    fn parenthesis(&mut self) -> Read {
        if self.begins_query() {
            self.query()?;
            return self.need(b')');
        }
        self.expressions(b')')
    }

    fn case(&mut self) -> Read {
        self.skip(1);
        if !self.is_word("when") {
            self.implies(&["="]);
            self.expression()?;
        }
        while self.take_word("when") {
            self.expression()?;
            self.need_word("then")?;
            self.expression()?;
        }
        if self.take_word("else") {
            self.expression()?;
        }
        self.need_word("end")
    }

    /// `ARRAY[…]`, `ARRAY(query)`, from behind ARRAY.
    fn array(&mut self) -> Read {
        if self.take(b'(') {
            self.query()?;
            return self.need(b')');
        }
        self.need(b'[')?;
        self.elements()
    }

    fn elements(&mut self) -> Read {
        self.within(|reader| {
            if reader.take(b']') {
                return Ok(());
            }
            loop {
                if reader.take(b'[') {
                    reader.elements()?;
                } else {
                    reader.expression()?;
                }
                if !reader.take(b',') {
                    return reader.need(b']');
                }
            }
        })
    }

    /// Functions with words between their arguments. PostgreSQL takes its own functions for
    /// those; with commas it looks some of them up by name.
    fn special(&mut self, word: &str) -> Read {
        if matches!(word, "substring" | "overlay") {
            self.named.call((None, word.to_owned()))?;
        }
        self.skip(2);
        self.take_any(&["both", "leading", "trailing"]);
        // TRIM(FROM x)
        self.take_word("from");
        loop {
            self.expression()?;
            let goes_on =
                self.take(b',') || self.take_any(&["from", "for", "placing", "similar", "using"]);
            if !goes_on {
                return self.need(b')');
            }
        }
    }

    /// A column, a call, or a string of a named type.
    fn named_operand(&mut self) -> Read {
        let first = match self.peek() {
            // Some words may be functions and no columns: left(…), right(…).
            Some(Lexeme::Word(word)) if is_reserved(word) => {
                let is_function = ["left", "right", "current_schema"]
                    .iter()
                    .any(|function| word.eq_ignore_ascii_case(function));
                if !is_function || self.after(1) != Some(&Lexeme::Mark(b'(')) {
                    return Err(Refusal::NotUnderstood);
                }
                self.label()?
            }
            _ => self.name()?,
        };
        let mut names = vec![first];
        while self.is(b'.') && !matches!(self.after(1), Some(Lexeme::Operator(_))) {
            self.skip(1);
            names.push(self.label()?);
        }
        if self.is(b'(') {
            let name = split(names)?;
            self.named.call(name)?;
            self.arguments()?;
            return self.aggregate();
        }
        if self.peek() == Some(&Lexeme::Text) {
            self.skip(1);
            self.named.types.insert(split(names)?);
            return Ok(());
        }
        for name in names.drain(1..) {
            self.named.attribute(name)?;
        }
        Ok(())
    }

    /// Arguments of a call, with their parentheses.
    pub(super) fn arguments(&mut self) -> Read {
        self.within(|reader| {
            reader.need(b'(')?;
            if reader.take(b')') {
                return Ok(());
            }
            if reader.peek() == Some(&Lexeme::Operator("*"))
                && reader.after(1) == Some(&Lexeme::Mark(b')'))
            {
                reader.skip(2);
                return Ok(());
            }
            reader.take_any(&["all", "distinct"]);
            loop {
                reader.take_word("variadic");
                if reader.after(1) == Some(&Lexeme::Names) {
                    reader.name()?;
                    reader.skip(1);
                }
                reader.expression()?;
                if !reader.take(b',') {
                    break;
                }
            }
            if reader.take_word("order") {
                reader.need_word("by")?;
                reader.order()?;
            }
            reader.need(b')')
        })
    }

    /// What may stand behind the call of an aggregate or a window function.
    fn aggregate(&mut self) -> Read {
        if self.is_word("within") && self.after(1).is_some_and(|next| next.is("group")) {
            self.skip(2);
            self.need(b'(')?;
            self.need_word("order")?;
            self.need_word("by")?;
            self.order()?;
            self.need(b')')?;
        }
        if self.is_word("filter") && self.after(1) == Some(&Lexeme::Mark(b'(')) {
            self.skip(2);
            self.need_word("where")?;
            self.expression()?;
            self.need(b')')?;
        }
        if self.take_word("over") {
            if self.is(b'(') {
                self.window()?;
            } else {
                self.name()?;
            }
        }
        Ok(())
    }

    /// The name of a type, with its size and its brackets.
    pub(super) fn type_name(&mut self) -> Read {
        let word = match self.peek() {
            Some(Lexeme::Word(word)) => word.to_ascii_lowercase(),
            _ => String::new(),
        };
        if TYPES.contains(&word.as_str()) {
            self.skip(1);
            match word.as_str() {
                "double" => self.need_word("precision")?,
                "national" => self.need_any(&["character", "char"])?,
                _ => {}
            }
            self.take_word("varying");
        } else {
            let name = self.qualified()?;
            self.named.types.insert(name);
        }
        while word == "interval" && self.take_any(INTERVAL) {}
        if self.is(b'(') {
            self.list()?;
        }
        if matches!(word.as_str(), "time" | "timestamp") && self.take_any(&["with", "without"]) {
            self.need_word("time")?;
            self.need_word("zone")?;
        }
        if self.take_word("array") {
            return Ok(());
        }
        while self.is(b'[') {
            self.skip(1);
            if self.peek() == Some(&Lexeme::Number) {
                self.skip(1);
            }
            self.need(b']')?;
        }
        Ok(())
    }
}

const INTERVAL: &[&str] = &["year", "month", "day", "hour", "minute", "second", "to"];

/// A name with its schema, if it has one.
fn split(mut names: Vec<String>) -> Read<(Option<String>, String)> {
    let name = names.pop().ok_or(Refusal::NotUnderstood)?;
    let schema = names.pop();
    if names.is_empty() { Ok((schema, name)) } else { Err(Refusal::NotUnderstood) }
}
