//! Translates a unit's capability limits into the program `setpriv`; knows no policy.

use anyhow::{Result, ensure};

/// What a unit's processes may never gain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// In the words of `setpriv --bounding-set`; `None` leaves the set alone.
    bounding_set: Option<Vec<String>>,
    pub no_new_privileges: bool,
}

impl Privileges {
    /// Takes one `CapabilityBoundingSet=` line: a list, or with `~` everything but the list; lines add up as in systemd.
    pub fn bound(&mut self, value: &str) -> Result<()> {
        let (inverted, list) = value.strip_prefix('~').map_or((false, value), |list| (true, list));
        let words =
            self.bounding_set.get_or_insert_with(|| vec![if inverted { "+all" } else { "-all" }.to_owned()]);
        for name in list.split_whitespace() {
            let short = name.strip_prefix("CAP_").unwrap_or_default();
            ensure!(
                !short.is_empty() && short.chars().all(|c| c.is_ascii_uppercase() || c == '_'),
                "{name} is not a capability"
            );
            words.push(format!("{}{}", if inverted { '-' } else { '+' }, short.to_ascii_lowercase()));
        }
        Ok(())
    }

    /// The words that go before a command line; empty when nothing is limited.
    pub fn wrapper(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(set) = &self.bounding_set {
            // What the machine itself does not have cannot be kept: `+` of it would be refused.
            let kept = set.join(",");
            words.extend(["--inh-caps".to_owned(), "-all".to_owned(), "--bounding-set".to_owned(), kept]);
        }
        if self.no_new_privileges {
            words.push("--no-new-privs".to_owned());
        }
        if !words.is_empty() {
            words.insert(0, "setpriv".to_owned());
            words.push("--".to_owned());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_only_what_it_names() {
        let mut privileges = Privileges::default();
        assert!(privileges.wrapper().is_empty());
        privileges.bound("CAP_NET_ADMIN CAP_NET_RAW").unwrap();
        privileges.no_new_privileges = true;
        assert_eq!(
            privileges.wrapper().join(" "),
            "setpriv --inh-caps -all --bounding-set -all,+net_admin,+net_raw --no-new-privs --"
        );
    }

    #[test]
    fn an_inverted_list_takes_away() {
        let mut privileges = Privileges::default();
        privileges.bound("~CAP_SYS_BOOT").unwrap();
        assert!(privileges.wrapper().contains(&"+all,-sys_boot".to_owned()));
        assert!(privileges.bound("net_admin").is_err());
    }
}
