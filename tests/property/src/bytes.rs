//! Ways in which good bytes go bad: flipped bits, cuts, holes, repetitions, parts of another input.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};

/// One thing that happened to some bytes.
#[derive(Debug, Clone)]
enum Edit {
    Flip {
        at: Index,
        bit: u8,
    },
    Set {
        at: Index,
        byte: u8,
    },
    Cut {
        at: Index,
    },
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    Remove {
        at: Index,
        length: usize,
    },
    Repeat {
        from: Index,
        length: usize,
        to: Index,
    },
    /// From here on it is the end of another input.
    Splice {
        at: Index,
        other: Vec<u8>,
        from: Index,
    },
}

fn edit(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip { at, bit }),
        3 => (at(), prop_oneof![Just(0), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()])
            .prop_map(|(at, byte)| Edit::Set { at, byte }),
        1 => at().prop_map(|at| Edit::Cut { at }),
        2 => (at(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
        1 => (at(), 1..24_usize).prop_map(|(at, length)| Edit::Remove { at, length }),
        1 => (at(), 1..64_usize, at()).prop_map(|(from, length, to)| Edit::Repeat { from, length, to }),
        1 => (at(), select(seeds), at()).prop_map(|(at, other, from)| Edit::Splice { at, other, from }),
    ]
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        match self {
            Self::Insert { at, bytes: new } => {
                let at = place(at, bytes);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Splice { at, other, from } => {
                bytes.truncate(place(at, bytes));
                bytes.extend_from_slice(&other[place(from, other)..]);
            }
            _ if bytes.is_empty() => {}
            Self::Flip { at, bit } => *at.get_mut(bytes) ^= 1 << bit,
            Self::Set { at, byte } => *at.get_mut(bytes) = *byte,
            Self::Cut { at } => bytes.truncate(at.index(bytes.len())),
            Self::Remove { at, length } => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + length));
            }
            Self::Repeat { from, length, to } => {
                let from = from.index(bytes.len());
                let part = bytes[from..bytes.len().min(from + length)].to_vec();
                let to = place(to, bytes);
                bytes.splice(to..to, part);
            }
        }
    }
}

/// One of these inputs with up to six things wrong, sometimes none.
///
/// # Panics
/// There are no inputs.
pub fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    assert!(!seeds.is_empty(), "nothing to damage");
    (select(seeds.clone()), vec(edit(seeds), 0..=6)).prop_map(|(mut bytes, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        bytes
    })
}

/// Bytes without any form, up to this many.
pub fn noise(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=longest)
}

/// Both of them.
pub fn any_of(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => noise(512), 7 => damaged(seeds)]
}
