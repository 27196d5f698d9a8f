//! What an operator may say: PgBouncer's grammar, and our own commands beside it.
//!
//! Text in, a [`Command`] out; knows neither who speaks nor what is there. Several commands may
//! stand in one query, with `;` between them. Case does not matter, comments are left out.

use std::fmt;

/// The longest name or value.
const LONGEST_WORD: usize = 4 * 1024;
/// Commands in one query.
const MOST: usize = 100;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Nothing is another after it.
    Look(Looking),
    /// Something is.
    Change(Changing),
}

/// What may be asked by all who may be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Looking {
    /// `SHOW name [argument]`.
    Show { view: String, argument: Option<String> },
    /// `SHOW client_encoding`, …: what drivers ask of every server.
    ShowSetting(Setting),
    /// `SET client_encoding = …`, …: taken, and ignored.
    SetIgnored,
    /// `BEGIN` and its end, which some drivers put around everything: nothing to do.
    Transaction(&'static str),
}

/// What changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changing {
    /// `SET key = value`.
    Set { key: String, value: String },
    /// `SET BUDGET server = n`; nothing: what is configured counts again.
    SetBudget { server: String, budget: Option<u32> },
    /// `RENEW server`.
    Renew { server: String },
    /// `RELOAD`.
    Reload,
    /// `PAUSE [database]`.
    Pause(Option<String>),
    /// `RESUME [database]`.
    Resume(Option<String>),
    /// `DISABLE database`.
    Disable(Option<String>),
    /// `ENABLE database`.
    Enable(Option<String>),
    /// `RECONNECT [database]`.
    Reconnect(Option<String>),
    /// `KILL [database]`.
    Kill(Option<String>),
    /// `KILL_CLIENT id`.
    KillClient(Option<String>),
    /// `SUSPEND`.
    Suspend,
    /// `SHUTDOWN [WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS]`.
    ShutDown(Shutdown),
    /// `WAIT_CLOSE [database]`.
    WaitClose(Option<String>),
}

impl From<Looking> for Command {
    fn from(looking: Looking) -> Self {
        Self::Look(looking)
    }
}

impl From<Changing> for Command {
    fn from(changing: Changing) -> Self {
        Self::Change(changing)
    }
}

/// How a program ends that was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Now,
    /// When all server connections have been given back.
    WaitForServers,
    /// When all clients have left.
    WaitForClients,
}

/// A setting that every server has, and the console pretends to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    ClientEncoding,
    DefaultTransactionIsolation,
    StandardConformingStrings,
    DateStyle,
    TimeZone,
}

impl Setting {
    const ALL: [Self; 5] = [
        Self::ClientEncoding,
        Self::DefaultTransactionIsolation,
        Self::StandardConformingStrings,
        Self::DateStyle,
        Self::TimeZone,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientEncoding => "client_encoding",
            Self::DefaultTransactionIsolation => "default_transaction_isolation",
            Self::StandardConformingStrings => "standard_conforming_strings",
            Self::DateStyle => "datestyle",
            Self::TimeZone => "timezone",
        }
    }

    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::ClientEncoding => "UTF8",
            Self::DefaultTransactionIsolation => "read committed",
            Self::StandardConformingStrings => "on",
            Self::DateStyle => "ISO",
            Self::TimeZone => "GMT",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.name() == name)
    }
}

/// Settings that drivers change after their login, besides those that they may ask for.
const IGNORED: [&str; 4] =
    ["extra_float_digits", "application_name", "search_path", "statement_timeout"];

impl Command {
    /// As which it is allowed, logged and answered.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Look(looking) => looking.verb(),
            Self::Change(changing) => changing.verb(),
        }
    }
}

impl Looking {
    fn verb(&self) -> &'static str {
        match self {
            Self::Show { .. } | Self::ShowSetting(_) => "SHOW",
            Self::SetIgnored => "SET",
            Self::Transaction(verb) => verb,
        }
    }
}

impl Changing {
    /// As [`Command::verb`].
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Set { .. } | Self::SetBudget { .. } => "SET",
            Self::Renew { .. } => "RENEW",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Reconnect(_) => "RECONNECT",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Suspend => "SUSPEND",
            Self::ShutDown(_) => "SHUTDOWN",
            Self::WaitClose(_) => "WAIT_CLOSE",
        }
    }
}

/// For the log: what a setting was set to is not shown.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look(Looking::Show { view, argument }) => {
                write!(f, "{} {view}", self.verb())?;
                argument.as_ref().map_or(Ok(()), |argument| write!(f, " {argument}"))
            }
            Self::Look(_) => f.write_str(self.verb()),
            Self::Change(changing) => changing.fmt(f),
        }
    }
}

/// As that of [`Command`].
impl fmt::Display for Changing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())?;
        let named = match self {
            Self::Set { key, .. } => Some(key),
            Self::SetBudget { server, budget } => {
                let budget = budget.map_or("default".to_owned(), |budget| budget.to_string());
                return write!(f, " BUDGET {server} = {budget}");
            }
            Self::Renew { server } => Some(server),
            Self::Pause(named)
            | Self::Resume(named)
            | Self::Disable(named)
            | Self::Enable(named)
            | Self::Reconnect(named)
            | Self::Kill(named)
            | Self::KillClient(named)
            | Self::WaitClose(named) => named.as_ref(),
            Self::ShutDown(Shutdown::WaitForServers) => return f.write_str(" WAIT_FOR_SERVERS"),
            Self::ShutDown(Shutdown::WaitForClients) => return f.write_str(" WAIT_FOR_CLIENTS"),
            Self::Reload | Self::Suspend | Self::ShutDown(Shutdown::Now) => None,
        };
        named.map_or(Ok(()), |named| write!(f, " {named}"))
    }
}

/// A text that is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("invalid command '{0}', use SHOW HELP;")]
    Unknown(String),
    #[error("a query may have {MOST} commands")]
    TooMany,
}

/// Reads all commands of `text`; none if there is nothing but space and comments.
///
/// # Errors
/// The first that is no command.
pub(crate) fn read(text: &str) -> Result<Vec<Command>, Unreadable> {
    let unknown = |text: &str| {
        let shown: String = text.trim().chars().take(200).collect();
        Unreadable::Unknown(shown)
    };
    let mut commands = Vec::new();
    let mut rest = text;
    loop {
        let (tokens, after) = tokens(rest).ok_or_else(|| unknown(rest))?;
        let this = rest.get(..rest.len() - after.len()).unwrap_or(rest);
        if !tokens.is_empty() {
            if commands.len() == MOST {
                return Err(Unreadable::TooMany);
            }
            commands.push(command(&tokens).ok_or_else(|| unknown(this))?);
        }
        match after.strip_prefix(';') {
            Some(after) => rest = after,
            None => return Ok(commands),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A bare word, in lower case, and as it was written.
    Word(String, String),
    /// A name in double quotes.
    Quoted(String),
    /// A text in quotes.
    Text(String),
    Equals,
}

impl Token {
    /// A name: bare as it was written.
    fn name(&self) -> Option<String> {
        match self {
            Self::Word(_, name) | Self::Quoted(name) => Some(name.clone()),
            Self::Text(_) | Self::Equals => None,
        }
    }

    /// A value of a setting.
    fn value(&self) -> Option<String> {
        match self {
            Self::Word(_, value) | Self::Quoted(value) | Self::Text(value) => Some(value.clone()),
            Self::Equals => None,
        }
    }

    fn keyword(&self) -> Option<&str> {
        match self {
            Self::Word(word, _) => Some(word),
            Self::Quoted(_) | Self::Text(_) | Self::Equals => None,
        }
    }
}

/// The tokens up to the next `;` or the end, and what follows them.
fn tokens(text: &str) -> Option<(Vec<Token>, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1;
            continue;
        }
        let Some(first) = rest.chars().next() else { return Some((tokens, rest)) };
        let token = match first {
            ';' => return Some((tokens, rest)),
            '=' => {
                rest = rest.strip_prefix('=')?;
                Token::Equals
            }
            '\'' | '"' => {
                let (inside, after) = quoted(rest, first)?;
                rest = after;
                if first == '"' { Token::Quoted(inside) } else { Token::Text(inside) }
            }
            _ => {
                let end = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                if word.is_empty() || word.len() > LONGEST_WORD {
                    return None;
                }
                rest = after;
                Token::Word(word.to_ascii_lowercase(), word.to_owned())
            }
        };
        tokens.push(token);
    }
}

/// Besides letters and digits: what numbers, names and paths of settings are made of.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '*' | '/' | '%' | ':' | '@' | ',')
}

/// What stands between quotes at the start of `text`; a doubled quote is one.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let (part, after) = rest.split_once(quote)?;
        inside.push_str(part);
        if inside.len() > LONGEST_WORD || inside.contains('\0') {
            return None;
        }
        match after.strip_prefix(quote) {
            Some(after) => {
                inside.push(quote);
                rest = after;
            }
            None => return Some((inside, after)),
        }
    }
}

fn command(tokens: &[Token]) -> Option<Command> {
    let (verb, rest) = tokens.split_first()?;
    let verb = verb.keyword()?;
    match verb {
        "show" | "select" => return show(rest),
        "set" => return set(rest),
        "begin" | "start" => return Some(Looking::Transaction("BEGIN").into()),
        "commit" | "end" => return Some(Looking::Transaction("COMMIT").into()),
        "rollback" | "abort" => return Some(Looking::Transaction("ROLLBACK").into()),
        _ => {}
    }
    let named = match rest {
        [] => None,
        [one] => Some(one.name()?),
        _ => return None,
    };
    let changing = match (verb, named) {
        ("reload", None) => Changing::Reload,
        ("suspend", None) => Changing::Suspend,
        ("renew", Some(server)) => Changing::Renew { server },
        ("pause", named) => Changing::Pause(named),
        ("resume", named) => Changing::Resume(named),
        ("disable", named) => Changing::Disable(named),
        ("enable", named) => Changing::Enable(named),
        ("reconnect", named) => Changing::Reconnect(named),
        ("kill", named) => Changing::Kill(named),
        ("kill_client", named) => Changing::KillClient(named),
        ("wait_close", named) => Changing::WaitClose(named),
        ("shutdown", None) => Changing::ShutDown(Shutdown::Now),
        ("shutdown", Some(how)) => Changing::ShutDown(match how.to_ascii_lowercase().as_str() {
            "wait_for_servers" => Shutdown::WaitForServers,
            "wait_for_clients" => Shutdown::WaitForClients,
            _ => return None,
        }),
        _ => return None,
    };
    Some(changing.into())
}

fn show(rest: &[Token]) -> Option<Command> {
    let (view, argument) = match rest {
        [view] => (view.keyword()?, None),
        [view, argument] => (view.keyword()?, Some(argument.value()?)),
        _ => return None,
    };
    if let (Some(setting), None) = (Setting::of(view), &argument) {
        return Some(Looking::ShowSetting(setting).into());
    }
    Some(Looking::Show { view: view.to_owned(), argument }.into())
}

fn set(rest: &[Token]) -> Option<Command> {
    if let [Token::Word(what, _), server, Token::Equals, to] = rest
        && what == "budget"
    {
        let budget = match to.keyword()? {
            "default" => None,
            number => Some(number.parse().ok().filter(|budget| *budget > 0)?),
        };
        return Some(Changing::SetBudget { server: server.name()?, budget }.into());
    }
    let [key, to, value] = rest else { return None };
    if *to != Token::Equals && to.keyword() != Some("to") {
        return None;
    }
    let (key, value) = (key.keyword()?.to_owned(), value.value()?);
    if Setting::of(&key).is_some() || IGNORED.contains(&key.as_str()) {
        return Some(Looking::SetIgnored.into());
    }
    Some(Changing::Set { key, value }.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Command {
        let mut commands = read(text).unwrap();
        assert_eq!(commands.len(), 1, "{text}");
        commands.remove(0)
    }

    #[test]
    fn case_space_comments_and_semicolons_do_not_matter() {
        let pools = Command::Look(Looking::Show { view: "pools".into(), argument: None });
        for text in ["show pools", "SHOW POOLS;", "  Show\n\tPools ; ", "/* app */ SELECT pools"] {
            assert_eq!(one(text), pools, "{text}");
        }
        assert_eq!(
            read("SHOW POOLS; -- and then\n RELOAD;").unwrap(),
            [pools, Changing::Reload.into()]
        );
        assert_eq!(read(" ; -- nothing").unwrap(), []);
    }

    #[test]
    fn names_may_be_quoted_and_keep_their_case() {
        assert_eq!(
            one("PAUSE \"My \"\"db\"\"\""),
            Changing::Pause(Some("My \"db\"".into())).into()
        );
        assert_eq!(one("KILL Db_1"), Changing::Kill(Some("Db_1".into())).into());
        assert_eq!(one("KILL"), Changing::Kill(None).into());
    }

    #[test]
    fn settings_are_set_with_a_word_or_a_text() {
        let set = |value: &str| -> Command {
            Changing::Set { key: "log_stats".into(), value: value.into() }.into()
        };
        assert_eq!(one("SET log_stats = 1"), set("1"));
        assert_eq!(one("set LOG_STATS to 'it''s'"), set("it's"));
        assert_eq!(one("set log_stats=''"), set(""));
        assert_eq!(one("SET client_encoding TO 'UTF8'"), Looking::SetIgnored.into());
    }

    #[test]
    fn a_budget_is_a_number_above_nothing_or_the_default() {
        let set = |budget| Command::Change(Changing::SetBudget { server: "main".into(), budget });
        assert_eq!(one("SET BUDGET main = 20"), set(Some(20)));
        assert_eq!(one("SET BUDGET main = DEFAULT"), set(None));
        assert!(read("SET BUDGET main = 0").is_err());
        assert!(read("SET BUDGET main = -1").is_err());
    }

    #[test]
    fn what_is_no_command_is_told_with_its_words() {
        for text in ["bogus", "SHOW", "RELOAD now", "SHUTDOWN soon", "SHOW 'x", "KILL a b", "(1)"] {
            let said = read(text).unwrap_err().to_string();
            assert_eq!(said, format!("invalid command '{text}', use SHOW HELP;"));
        }
    }

    #[test]
    fn the_log_does_not_see_what_a_setting_is_set_to() {
        assert_eq!(one("SET auth_query = 'secret'").to_string(), "SET auth_query");
        assert_eq!(one("shutdown wait_for_clients").to_string(), "SHUTDOWN WAIT_FOR_CLIENTS");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text: String) {
            drop(read(&text));
        }
    }
}
