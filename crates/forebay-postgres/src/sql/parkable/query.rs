//! The grammar of queries ("SELECT" in the reference), as loose as it may be: what PostgreSQL
//! would not take may pass here, since it has failed there. What is accepted here and by
//! PostgreSQL means the same to both.

use super::lexemes::Lexeme;
use super::{Named, Refusal};

/// Deeper nesting is refused.
const DEEPEST: u32 = 60;

/// Reads lexemes and collects names.
pub(super) struct Reader<'a> {
    lexemes: &'a [Lexeme<'a>],
    at: usize,
    depth: u32,
    pub(super) named: Named,
}

pub(super) type Read<T = ()> = Result<T, Refusal>;

/// How names that stand behind a relation or an expression begin the next clause, or what else
/// cannot be an alias: PostgreSQL's reserved words ("SQL Key Words"), and those that may be
/// functions or types only.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

impl<'a> Reader<'a> {
    pub(super) fn new(lexemes: &'a [Lexeme<'a>]) -> Self {
        Self { lexemes, at: 0, depth: 0, named: Named::default() }
    }

    /// The one statement of the text.
    pub(super) fn statement(mut self) -> Read<Named> {
        let first = self.lexemes.iter().find(|lexeme| **lexeme != Lexeme::Mark(b'('));
        let begins = |word: &str| first.is_some_and(|lexeme| lexeme.is(word));
        if !begins("select") && !begins("with") {
            return Err(Refusal::NotASelect);
        }
        self.query()?;
        while self.take(b';') {}
        match self.peek() {
            None => Ok(self.named),
            Some(_)
                if self.at > 0 && self.lexemes.get(self.at - 1) == Some(&Lexeme::Mark(b';')) =>
            {
                Err(Refusal::SeveralStatements)
            }
            Some(_) => Err(Refusal::NotUnderstood),
        }
    }

    /// One level deeper, for the time of `read`.
    pub(super) fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= DEEPEST {
            return Err(Refusal::TooDeep);
        }
        self.depth += 1;
        let done = read(self);
        self.depth -= 1;
        done
    }

    /// A query, with all that may stand around its SELECTs.
    pub(super) fn query(&mut self) -> Read {
        self.within(|reader| {
            if reader.take_word("with") {
                reader.with()?;
                reader.only_reads()?;
            }
            reader.select()?;
            while reader.take_any(&["union", "intersect", "except"]) {
                reader.take_any(&["all", "distinct"]);
                reader.select()?;
            }
            reader.tail()
        })
    }

    /// ORDER BY, LIMIT and their kin.
    fn tail(&mut self) -> Read {
        loop {
            if self.take_word("order") {
                self.need_word("by")?;
                self.order()?;
            } else if self.take_word("limit") {
                if !self.take_word("all") {
                    self.expression()?;
                }
            } else if self.take_word("offset") {
                self.expression()?;
                self.take_any(&["row", "rows"]);
            } else if self.take_word("fetch") {
                self.need_any(&["first", "next"])?;
                if !self.is_any(&["row", "rows"]) {
                    self.operand()?;
                }
                self.need_any(&["row", "rows"])?;
                if self.take_word("with") {
                    self.need_word("ties")?;
                } else {
                    self.need_word("only")?;
                }
            } else if self.is_word("for") {
                return Err(Refusal::RowLocks);
            } else {
                return Ok(());
            }
        }
    }

    /// What stands behind WITH.
    fn with(&mut self) -> Read {
        self.take_word("recursive");
        loop {
            let name = self.name()?;
            self.named.given.insert(name);
            if self.is(b'(') {
                self.columns()?;
            }
            self.need_word("as")?;
            if self.take_word("not") {
                self.need_word("materialized")?;
            } else {
                self.take_word("materialized");
            }
            self.need(b'(')?;
            self.only_reads()?;
            self.query()?;
            self.need(b')')?;
            if !self.take(b',') {
                return Ok(());
            }
        }
    }

    fn only_reads(&self) -> Read {
        if self.is_any(&["insert", "update", "delete", "merge"]) {
            return Err(Refusal::WritingWith);
        }
        Ok(())
    }

    fn select(&mut self) -> Read {
        if self.take(b'(') {
            self.query()?;
            return self.need(b')');
        }
        if self.take_word("values") {
            return self.rows();
        }
        self.need_word("select")?;
        if self.take_word("distinct") {
            if self.take_word("on") {
                self.list()?;
            }
        } else {
            self.take_word("all");
        }
        self.targets()?;
        if self.is_word("into") {
            return Err(Refusal::Into);
        }
        if self.take_word("from") {
            self.relations()?;
        }
        if self.take_word("where") {
            self.expression()?;
        }
        if self.take_word("group") {
            self.need_word("by")?;
            self.take_any(&["all", "distinct"]);
            self.groups()?;
        }
        if self.take_word("having") {
            self.expression()?;
        }
        if self.take_word("window") {
            loop {
                self.name()?;
                self.need_word("as")?;
                self.window()?;
                if !self.take(b',') {
                    break;
                }
            }
        }
        Ok(())
    }

    /// `VALUES (…), (…)`
    fn rows(&mut self) -> Read {
        loop {
            self.list()?;
            if !self.take(b',') {
                return Ok(());
            }
        }
    }

    fn targets(&mut self) -> Read {
        loop {
            match self.peek() {
                Some(Lexeme::Operator("*")) => self.at += 1,
                // Nothing at all may be selected.
                None | Some(Lexeme::Mark(b')' | b';')) => return Ok(()),
                _ if self.is_any(&["from", "where", "into", "group", "limit", "union"]) => {
                    return Ok(());
                }
                _ => {
                    self.expression()?;
                    if self.take_word("as") {
                        self.label()?;
                    } else if self.is_alias() {
                        self.at += 1;
                    }
                }
            }
            if !self.take(b',') {
                return Ok(());
            }
        }
    }

    fn groups(&mut self) -> Read {
        loop {
            if self.take_any(&["rollup", "cube"]) {
                if !self.is(b'(') {
                    return Err(Refusal::NotUnderstood);
                }
                self.list()?;
            } else if self.is_word("grouping") && self.is_next("sets") {
                self.at += 2;
                self.need(b'(')?;
                self.within(Self::groups)?;
                self.need(b')')?;
            } else if self.is(b'(') && self.lexemes.get(self.at + 1) == Some(&Lexeme::Mark(b')')) {
                self.at += 2;
            } else {
                self.expression()?;
            }
            if !self.take(b',') {
                return Ok(());
            }
        }
    }

    /// What stands behind ORDER BY.
    pub(super) fn order(&mut self) -> Read {
        loop {
            self.expression()?;
            self.take_any(&["asc", "desc"]);
            if self.take_word("nulls") {
                self.need_any(&["first", "last"])?;
            }
            if !self.take(b',') {
                return Ok(());
            }
        }
    }

    /// What stands behind FROM.
    fn relations(&mut self) -> Read {
        loop {
            self.joined()?;
            if !self.take(b',') {
                return Ok(());
            }
        }
    }

    fn joined(&mut self) -> Read {
        self.relation()?;
        loop {
            let is_natural = self.take_word("natural");
            let is_cross = !is_natural && self.take_word("cross");
            if self.take_any(&["left", "right", "full"]) {
                self.take_word("outer");
            } else {
                self.take_word("inner");
            }
            if !self.take_word("join") {
                // What was taken before it makes no sense without it.
                let before = self.at.checked_sub(1).and_then(|at| self.lexemes.get(at));
                let half = ["natural", "cross", "left", "right", "full", "outer", "inner"];
                let is_half = half.iter().any(|word| before.is_some_and(|last| last.is(word)));
                return if is_half { Err(Refusal::NotUnderstood) } else { Ok(()) };
            }
            self.relation()?;
            if is_natural {
                self.named.operator(None, "=");
            } else if !is_cross {
                // A join within a join may have its condition later.
                if self.is_any(&["join", "left", "right", "full", "inner", "cross", "natural"]) {
                    return Err(Refusal::NotUnderstood);
                }
                if self.take_word("using") {
                    self.named.operator(None, "=");
                    self.columns()?;
                    if self.take_word("as") {
                        self.name()?;
                    }
                } else {
                    self.need_word("on")?;
                    self.expression()?;
                }
            }
        }
    }

    fn relation(&mut self) -> Read {
        self.within(|reader| {
            reader.take_word("lateral");
            if reader.take(b'(') {
                if reader.begins_query() {
                    reader.query()?;
                } else {
                    reader.joined()?;
                }
                reader.need(b')')?;
                return reader.relation_alias();
            }
            let is_only = reader.take_word("only");
            let name = reader.qualified()?;
            if reader.is(b'(') && !is_only {
                reader.named.call(name)?;
                reader.arguments()?;
                if reader.take_word("with") {
                    reader.need_word("ordinality")?;
                }
                return reader.relation_alias();
            }
            reader.named.relations.insert(name);
            if reader.peek() == Some(&Lexeme::Operator("*")) {
                reader.at += 1;
            }
            reader.relation_alias()
        })
    }

    /// `AS name`, `AS name (columns)`, `AS name (column type, …)`, and without AS.
    fn relation_alias(&mut self) -> Read {
        if self.take_word("as") {
            if !self.is(b'(') {
                self.name()?;
            }
        } else if self.is_alias() {
            self.name()?;
        } else {
            return Ok(());
        }
        if !self.take(b'(') {
            return Ok(());
        }
        loop {
            self.name()?;
            if !self.is(b',') && !self.is(b')') {
                self.type_name()?;
                if self.take_word("collate") {
                    self.qualified()?;
                }
            }
            if !self.take(b',') {
                return self.need(b')');
            }
        }
    }

    /// `(name, …)`
    fn columns(&mut self) -> Read {
        self.need(b'(')?;
        loop {
            self.name()?;
            if !self.take(b',') {
                return self.need(b')');
            }
        }
    }

    /// `OVER (…)` and `WINDOW w AS (…)`, from the parenthesis on.
    pub(super) fn window(&mut self) -> Read {
        self.need(b'(')?;
        const CLAUSES: &[&str] = &["partition", "order", "range", "rows", "groups"];
        if !self.is(b')') && !self.is_any(CLAUSES) {
            self.name()?;
        }
        if self.take_word("partition") {
            self.need_word("by")?;
            loop {
                self.expression()?;
                if !self.take(b',') {
                    break;
                }
            }
        }
        if self.take_word("order") {
            self.need_word("by")?;
            self.order()?;
        }
        if self.take_any(&["range", "rows", "groups"]) {
            if self.take_word("between") {
                self.bound()?;
                self.need_word("and")?;
            }
            self.bound()?;
            if self.take_word("exclude") {
                if self.take_word("current") {
                    self.need_word("row")?;
                } else if self.take_word("no") {
                    self.need_word("others")?;
                } else {
                    self.need_any(&["group", "ties"])?;
                }
            }
        }
        self.need(b')')
    }

    /// One end of a window's frame.
    fn bound(&mut self) -> Read {
        if self.take_word("current") {
            return self.need_word("row");
        }
        const SIDES: [&str; 2] = ["preceding", "following"];
        // A single word says that there is no bound, or is a column's name: nothing is called.
        let is_word = matches!(self.peek(), Some(Lexeme::Word(_)));
        if is_word && SIDES.iter().any(|side| self.is_next(side)) {
            self.skip(1);
        } else {
            self.operand()?;
        }
        self.need_any(&SIDES)
    }

    /// Does a query begin here, behind a parenthesis?
    pub(super) fn begins_query(&self) -> bool {
        let rest = self.lexemes.get(self.at..).unwrap_or_default();
        let first = rest.iter().find(|lexeme| **lexeme != Lexeme::Mark(b'('));
        // `((SELECT 1) + 1)` is none, but what is in it will be found out.
        let is = |word: &str| first.is_some_and(|lexeme| lexeme.is(word));
        let is_direct = rest.first() == first;
        is_direct && ["select", "with", "values"].iter().any(|word| is(word))
    }

    /// A name of any kind that is not reserved.
    pub(super) fn name(&mut self) -> Read<String> {
        match self.peek() {
            Some(Lexeme::Word(word)) if !is_reserved(word) => {
                let name = word.to_ascii_lowercase();
                self.at += 1;
                Ok(name)
            }
            Some(Lexeme::Quoted(name)) => {
                let name = name.replace("\"\"", "\"");
                self.at += 1;
                Ok(name)
            }
            _ => Err(Refusal::NotUnderstood),
        }
    }

    /// `name`, or `schema.name`.
    pub(super) fn qualified(&mut self) -> Read<(Option<String>, String)> {
        let first = self.name()?;
        if !self.take(b'.') {
            return Ok((None, first));
        }
        let second = self.label()?;
        if self.is(b'.') {
            return Err(Refusal::NotUnderstood);
        }
        Ok((Some(first), second))
    }

    /// Any word at all, or a quoted name: behind AS or a dot.
    pub(super) fn label(&mut self) -> Read<String> {
        match self.peek() {
            Some(Lexeme::Word(word)) => {
                let name = word.to_ascii_lowercase();
                self.at += 1;
                Ok(name)
            }
            _ => self.name(),
        }
    }

    /// Is here a name that needs no AS?
    fn is_alias(&self) -> bool {
        match self.peek() {
            Some(Lexeme::Word(word)) => !is_reserved(word),
            Some(Lexeme::Quoted(_)) => true,
            _ => false,
        }
    }

    pub(super) fn peek(&self) -> Option<&Lexeme<'a>> {
        self.lexemes.get(self.at)
    }

    pub(super) fn after(&self, n: usize) -> Option<&Lexeme<'a>> {
        self.lexemes.get(self.at + n)
    }

    pub(super) fn skip(&mut self, n: usize) {
        self.at += n;
    }

    pub(super) fn is(&self, mark: u8) -> bool {
        self.peek() == Some(&Lexeme::Mark(mark))
    }

    pub(super) fn take(&mut self, mark: u8) -> bool {
        let is = self.is(mark);
        self.at += usize::from(is);
        is
    }

    pub(super) fn need(&mut self, mark: u8) -> Read {
        if self.take(mark) { Ok(()) } else { Err(self.not_understood()) }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.peek().is_some_and(|lexeme| lexeme.is(word))
    }

    fn is_next(&self, word: &str) -> bool {
        self.after(1).is_some_and(|lexeme| lexeme.is(word))
    }

    pub(super) fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(word))
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let is = self.is_word(word);
        self.at += usize::from(is);
        is
    }

    pub(super) fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take_word(word))
    }

    pub(super) fn need_word(&mut self, word: &str) -> Read {
        self.need_any(&[word])
    }

    pub(super) fn need_any(&mut self, words: &[&str]) -> Read {
        if self.take_any(words) { Ok(()) } else { Err(self.not_understood()) }
    }

    /// Why what stands here is not understood.
    fn not_understood(&self) -> Refusal {
        if self.is_word("into") {
            Refusal::Into
        } else if self.is_word("for") {
            Refusal::RowLocks
        } else {
            Refusal::NotUnderstood
        }
    }
}

pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved))
}
