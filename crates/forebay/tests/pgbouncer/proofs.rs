//! Files in which clients have to prove who they are.

use crate::bench::Folder;
use crate::files::{both, who};

fn with(to: &str, password: &str) -> String {
    format!("{to} password='{password}'")
}

#[test]
fn the_example_of_the_documentation_runs() {
    let folder = Folder::new();
    both(&folder, "example.ini", || {
        let to = folder.to("template1", "someuser");
        assert_eq!(who(&with(&to, "same_password_as_in_server")), "someuser@template1");
        assert!(who(&with(&to, "wrong")).contains("password authentication failed"));
    });
}

#[test]
fn users_are_looked_up_where_the_file_says_how() {
    let folder = Folder::new();
    both(&folder, "auth_query.ini", || {
        let to = folder.to("postgres", "queried");
        assert_eq!(who(&with(&to, "asked")), "queried@postgres");
        assert!(who(&with(&to, "wrong")).contains("password authentication failed"));
    });
}

#[test]
fn a_list_of_rules_decides_who_proves_what() {
    let folder = Folder::new();
    both(&folder, "hba.ini", || {
        let to = folder.to("postgres", "forebay");
        assert_eq!(who(&with(&to, "a password")), "forebay@postgres");
        assert!(who(&with(&to, "wrong")).contains("password authentication failed"));
        assert_ne!(who(&folder.to("postgres", "someuser")), "someuser@postgres");
        let socket = folder.path("");
        let socket =
            format!("host={} port={} user=someuser dbname=postgres", socket.display(), folder.port);
        assert_eq!(who(&socket), "someuser@postgres");
    });
}
