//! Declared users and databases, as the SQL kinds read them from their settings. Makes none.

use std::collections::BTreeSet;

use serde::Serialize;

use super::settings::Fields;

/// User and database of a service that names none.
const DEFAULT_USER: &str = "app";
const USERS_MAX: usize = 100;

/// Names that belong to the server or the platform.
pub struct Reserved {
    /// Users.
    pub users: &'static [&'static str],
    /// Beginnings of users' names.
    pub prefixes: &'static [&'static str],
    /// Databases.
    pub databases: &'static [&'static str],
}

/// A database and who owns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// A user of the service.
    pub owner: String,
}

fn is_identifier(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The setting `users`, at least one.
pub fn users(fields: &mut Fields<'_>, reserved: &Reserved) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let users = fields.list("users", USERS_MAX, "write a list of `- name: NAME`", |user| {
        let name: String = user.required("name", "write the user's name")?;
        if !is_identifier(&name) {
            user.problem("name", "not a user's name", "use a-z, 0-9 and `_`, at most 63, no digit first");
        } else if reserved.users.contains(&name.as_str())
            || reserved.prefixes.iter().any(|prefix| name.starts_with(prefix))
        {
            user.problem(
                "name",
                format!("`{name}` belongs to the server or the platform"),
                "take another name",
            );
        } else if !seen.insert(name.clone()) {
            user.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        Some(name)
    });
    if users.is_empty() { vec![DEFAULT_USER.to_owned()] } else { users }
}

/// The setting `databases`, at least one.
pub fn databases(fields: &mut Fields<'_>, users: &[String], reserved: &Reserved) -> Vec<Database> {
    let mut seen = BTreeSet::new();
    let help = "write a list of `- {name: NAME, owner: USER}`";
    let databases = fields.list("databases", USERS_MAX, help, |database| {
        let name: String = database.required("name", "write the database's name")?;
        let owner: Option<String> = database.get("owner", "write the name of one of `users:`");
        let owner = owner.or_else(|| users.first().cloned())?;
        if !is_identifier(&name) {
            database.problem(
                "name",
                "not a database's name",
                "use a-z, 0-9 and `_`, at most 63, no digit first",
            );
        } else if reserved.databases.contains(&name.as_str()) {
            database.problem("name", format!("`{name}` belongs to the server"), "take another name");
        } else if !seen.insert(name.clone()) {
            database.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        if !users.contains(&owner) {
            database.problem(
                "owner",
                "no such user in this service",
                "add it to `users:`, or name one of them",
            );
        }
        Some(Database { name, owner })
    });
    if !databases.is_empty() {
        return databases;
    }
    let owner = users.first().cloned().unwrap_or_else(|| DEFAULT_USER.to_owned());
    vec![Database { name: owner.clone(), owner }]
}
