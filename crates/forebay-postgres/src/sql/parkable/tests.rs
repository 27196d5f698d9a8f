//! What is one plain SELECT and what is none: texts as programs send them, and traps.

use super::*;

fn named(text: &str) -> Named {
    examine(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

fn refused(text: &str) -> Refusal {
    examine(text).err().unwrap_or_else(|| panic!("accepted: {text}"))
}

#[test]
fn a_plain_select_is_understood_with_all_it_names() {
    let named =
        named("SELECT lower(u.name), count(*) FROM users u WHERE u.id = $1::int GROUP BY 1");
    let functions: Vec<_> = named.functions.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(functions, ["count", "lower"]);
}

#[test]
fn what_holds_something_is_refused_by_its_name() {
    assert_eq!(refused("SELECT 1; SELECT 2"), Refusal::SeveralStatements);
    assert_eq!(refused("SELECT * FROM t FOR UPDATE"), Refusal::RowLocks);
}
