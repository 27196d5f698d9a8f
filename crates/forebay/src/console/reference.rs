//! The console's views as Markdown, written by the views themselves.

use forebay_postgres::console::{Reader, View, pgbouncer_views};

use super::VIEWS;

/// The reference.
pub fn markdown() -> String {
    let mut text = "# The console's views\n\n<!-- Written by `forebay config views` out of the \
                    views themselves; do not edit. -->\n\nWhat they are for is in \
                    [console.md](console.md).\n"
        .to_owned();
    text.push_str("\n## As PgBouncer has them\n");
    pgbouncer_views().iter().for_each(|view| one(view, &mut text));
    text.push_str("\n## Forebay's own\n");
    VIEWS.iter().for_each(|view| one(view, &mut text));
    text
}

fn one(view: &View, text: &mut String) {
    let argument = match view.argument {
        "" => String::new(),
        argument => format!(" [{argument}]"),
    };
    let who = match view.reader {
        Reader::Stats => "",
        Reader::Admin => " `admin_users` only.",
    };
    let name = view.name.to_uppercase();
    text.push_str(&format!("\n### SHOW {name}{argument}\n\n{}{who}\n", view.about));
    text.push_str("\n| column | type | meaning |\n|---|---|---|\n");
    for column in view.columns {
        let (name, kind, meaning) = (column.name, column.kind.name(), column.meaning);
        text.push_str(&format!("| `{name}` | {kind} | {meaning} |\n"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_reference_of_views_is_what_the_views_say() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/console-views.md");
        let written = std::fs::read_to_string(file).unwrap();
        let hint = "run `forebay config views > docs/console-views.md`";
        assert!(written == markdown(), "{hint}");
    }

    #[test]
    fn no_two_views_or_columns_of_a_view_have_one_name() {
        let mut names = HashSet::from(["help"]);
        for view in pgbouncer_views().iter().chain(VIEWS) {
            assert!(names.insert(view.name), "{}", view.name);
            let mut columns = HashSet::new();
            assert!(view.columns.iter().all(|column| columns.insert(column.name)), "{}", view.name);
        }
    }
}
