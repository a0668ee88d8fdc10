//! Whether an answer fulfils a guard's condition. Pure, and the same for agents and the simulator.

use serde_json::Value;

use crate::observed::Answer;
use crate::plan::Predicate;

impl Predicate {
    /// Whether `answer` fulfils the condition. What cannot be read does not.
    #[must_use]
    pub fn holds(&self, answer: &Answer) -> bool {
        let body = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        self.holds_at(answer, &body)
    }

    fn holds_at(&self, answer: &Answer, at: &Value) -> bool {
        match self {
            Self::Ok => answer.ok,
            Self::Code(code) => answer.code == Some(*code),
            Self::Equals { pointer, value } => at.pointer(pointer) == Some(value),
            Self::AtMost { pointer, value } => {
                at.pointer(pointer).and_then(Value::as_f64).is_some_and(|number| number <= *value)
            }
            Self::Count { pointer, accept, at_least } => {
                let fits = |element: &&Value| accept.holds_at(answer, element);
                let count = match at.pointer(pointer) {
                    Some(Value::Array(elements)) => elements.iter().filter(fits).count(),
                    Some(Value::Object(entries)) => entries.values().filter(fits).count(),
                    _ => return false,
                };
                count >= *at_least
            }
            Self::All(parts) => parts.iter().all(|part| part.holds_at(answer, at)),
            Self::Any(parts) => parts.iter().any(|part| part.holds_at(answer, at)),
            Self::Not(part) => !part.holds_at(answer, at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming(at_least: usize) -> Predicate {
        let equals = |pointer: &str, value: &str| Predicate::Equals {
            pointer: pointer.to_owned(),
            value: Value::from(value),
        };
        Predicate::Count {
            pointer: "/members".to_owned(),
            accept: Box::new(Predicate::All(vec![
                equals("/role", "sync_standby"),
                equals("/state", "streaming"),
                Predicate::AtMost { pointer: "/lag".to_owned(), value: 1_048_576.0 },
            ])),
            at_least,
        }
    }

    #[test]
    fn elements_are_counted_and_what_cannot_be_read_does_not_hold() {
        let body = r#"{"members":[{"role":"leader"},{"role":"sync_standby","state":"streaming","lag":0},
                       {"role":"sync_standby","state":"streaming"}]}"#;
        let answer = |body: &str| Answer { ok: true, code: Some(200), body: body.to_owned() };
        assert!(streaming(1).holds(&answer(body)));
        assert!(!streaming(2).holds(&answer(body)));
        assert!(!streaming(1).holds(&answer("<html>")));
        assert!(!streaming(0).holds(&answer("{}")));
    }
}
