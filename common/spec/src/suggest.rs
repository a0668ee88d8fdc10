//! "Did you mean": the known word nearest to an unknown one.

use crate::limits::WORD_MAX;

/// The candidate that a mistyped `word` probably meant; nothing if none is near.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let best = candidates.into_iter().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= 1 + word.len() / 4).then_some(best)
}

/// Splits serde's "unknown field `x`, expected one of `a`, `b`" into the field and the candidates.
pub(crate) fn unknown_word(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (word, rest) = rest.split_once('`')?;
    let candidates = rest.split('`').skip(1).step_by(2).collect();
    Some((word, candidates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(nearest("replcas", ["replicas", "place"]), Some("replicas"));
        assert_eq!(nearest("zzz", ["replicas", "place"]), None);
    }

    #[test]
    fn serde_messages_are_understood() {
        let message = "unknown field `prot`, expected one of `port`, `audience`";
        assert_eq!(unknown_word(message), Some(("prot", vec!["port", "audience"])));
        assert_eq!(unknown_word("missing field `x`"), None);
    }
}
