//! What PostgreSQL 15 takes as its parameters: names, types, ranges. A wrong one would keep the server from starting,
//! or be dropped by Patroni with no more than a line in a log.

use serde_json::Value;

/// One parameter a line: name, type, least, most, unit, words of an enum; `-` = none. From `pg_settings`.
const KNOWN: &str = include_str!("parameters.txt");
const TEXT_LEN_MAX: usize = 1000;

struct Parameter {
    sort: &'static str,
    least: f64,
    most: f64,
    unit: &'static str,
    words: &'static str,
}

fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    KNOWN.lines().filter_map(|line| line.split_once(' '))
}

fn find(name: &str) -> Option<Parameter> {
    let (_, rest) = known().find(|(known, _)| *known == name)?;
    let mut rest = rest.split(' ');
    let mut next = || rest.next().unwrap_or("-");
    let (sort, least, most, unit, words) = (next(), next(), next(), next(), next());
    let bound = |text: &str, none: f64| text.parse().unwrap_or(none);
    Some(Parameter { sort, least: bound(least, f64::MIN), most: bound(most, f64::MAX), unit, words })
}

/// What is wrong with a parameter, and what to write instead. A name with a dot belongs to an extension.
pub fn judge(name: &str, value: &Value) -> Option<(String, String)> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => String::new(),
    };
    let plain = !text.chars().any(char::is_control) && !text.contains("${") && text.len() <= TEXT_LEN_MAX;
    if !plain || (text.is_empty() && !value.is_string()) {
        let help = "write one line of text, a number, true or false";
        return Some(("not a plain value".to_owned(), help.to_owned()));
    }
    if name.contains('.') {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let good = name.split('.').all(|part| !part.is_empty() && part.chars().all(word));
        return (!good)
            .then(|| ("not the name of a parameter".to_owned(), "write extension.name".to_owned()));
    }
    let Some(parameter) = find(name) else {
        let help = match muster_spec::nearest(name, known().map(|(name, _)| name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write a parameter of PostgreSQL 15, or leave it out".to_owned(),
        };
        return Some((format!("PostgreSQL has no parameter `{}`", name.escape_debug()), help));
    };
    parameter.judge(&text)
}

impl Parameter {
    fn judge(&self, text: &str) -> Option<(String, String)> {
        let found = |message: &str, help: String| Some((message.to_owned(), help));
        match self.sort {
            "bool" if !is_truth(text) => found("neither true nor false", "write true or false".to_owned()),
            "enum"
                if !self.words.split(',').any(|word| word.eq_ignore_ascii_case(text)) && !is_truth(text) =>
            {
                found("not a value of this parameter", format!("write one of {}", self.words))
            }
            "integer" | "real" => {
                let number =
                    self.number(text).filter(|n| self.sort == "real" || n.fract().abs() < f64::EPSILON);
                match number {
                    None => found("not a value of this parameter", self.example()),
                    Some(number) if number < self.least || number > self.most => {
                        found("out of range", self.example())
                    }
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }

    fn example(&self) -> String {
        let unit = match self.unit {
            "-" => String::new(),
            unit if unit.ends_with('B') => ", or with a unit, for example 64MB".to_owned(),
            _ => ", or with a unit, for example 30s".to_owned(),
        };
        let of = if self.unit == "-" { String::new() } else { format!(" (of {})", self.unit) };
        format!("write a number from {} to {}{of}{unit}", self.least, self.most)
    }

    /// The number in the parameter's own unit.
    fn number(&self, text: &str) -> Option<f64> {
        let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: f64 = digits.trim().parse().ok()?;
        if unit.is_empty() {
            return Some(number);
        }
        let own = self.unit.trim_start_matches(|c: char| c.is_ascii_digit());
        let blocks: f64 = self.unit[..self.unit.len() - own.len()].parse().unwrap_or(1.0);
        // A value in a finer unit than the parameter's is rounded by the server.
        Some((number * size_of(unit, own)? / size_of(own, own)? / blocks).round())
    }
}

/// A unit in bytes or microseconds, whichever the other one is counted in.
fn size_of(unit: &str, like: &str) -> Option<f64> {
    let bytes =
        [("B", 1.0), ("kB", 1024.0), ("MB", 1048576.0), ("GB", 1073741824.0), ("TB", 1099511627776.0)];
    let times = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 6e7), ("h", 3.6e9), ("d", 8.64e10)];
    let units: &[(&str, f64)] = if like.ends_with('B') { &bytes } else { &times };
    let known = |unit: &str| units.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
    known(like)?;
    known(unit)
}

fn is_truth(text: &str) -> bool {
    ["true", "false", "on", "off", "yes", "no", "1", "0"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::judge;

    #[test]
    fn values_are_judged_by_type_range_and_unit() {
        for (name, value) in [
            ("work_mem", json!("8MB")),
            ("work_mem", json!(4096)),
            ("shared_buffers", json!("2GB")),
            ("log_min_duration_statement", json!("250ms")),
            ("log_min_duration_statement", json!(-1)),
            ("checkpoint_timeout", json!("15min")),
            ("random_page_cost", json!(1.1)),
            ("jit", json!("off")),
            ("archive_mode", json!("on")),
            ("pg_stat_statements.max", json!(1000)),
            ("shared_preload_libraries", json!("pg_stat_statements")),
        ] {
            assert_eq!(judge(name, &value), None, "{name} {value}");
        }
        for (name, value, remedy) in [
            ("work_mem", json!("5GIB"), "64MB"),
            ("work_mem", json!("5s"), "64MB"),
            ("work_mem", json!("1kB"), "from 64"),
            ("max_connections", json!("200s"), "number"),
            ("max_connections", json!(0), "from 1"),
            ("max_connections", json!(2.5), "number"),
            ("jit", json!("maybe"), "true"),
            ("archive_mode", json!("perhaps"), "always"),
            ("max_conections", json!(200), "max_connections"),
            ("zzz", json!(1), "PostgreSQL 15"),
            ("a..b", json!(1), "extension.name"),
        ] {
            let (_, help) = judge(name, &value).unwrap_or_default();
            assert!(help.contains(remedy), "{name} {value}: {help}");
        }
    }
}
