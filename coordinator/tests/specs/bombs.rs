//! Files that are made to hurt the reader: huge, deep, repeating, with odd bytes; and noise from a seed.

use std::fmt::Write as _;

use super::{sample, valid, verdict};

fn bombs() -> Vec<(&'static str, String)> {
    let head = "muster: 1\nplatform: p\n";
    let nest =
        |open: &str, close: &str, n: usize| format!("{head}x: {}{}\n", open.repeat(n), close.repeat(n));
    let mut laughs = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
        let _ = writeln!(laughs, "{to}: &{to} [{}]", vec![format!("*{from}"); 9].join(","));
    }
    let many = |line: &dyn Fn(usize) -> String, n: usize| (0..n).map(line).collect::<String>();
    let long_key = format!("{head}\"{}\": [{}]\n", "k".repeat(120_000), "x,".repeat(50_000));
    let merge =
        "muster: 1\nplatform: p\nmesh: &m\n  port: 5000\nservices:\n  a:\n    <<: *m\n    kind: app\n";
    let steps: String = (0..39).map(|n| format!("{}{}:\n", "  ".repeat(n), "k".repeat(200))).collect();
    vec![
        ("10 MB", "x".repeat(10 << 20)),
        ("10 MB of lines", "a: b\n".repeat(2 << 20)),
        ("alias expansion", laughs),
        ("alias of itself", format!("{head}x: &a [*a]\n")),
        ("unknown alias", format!("{head}x: *nobody\n")),
        ("many anchors", head.to_owned() + &many(&|n| format!("x{n}: &a{n} y\n"), 10_000)),
        ("many aliases", format!("{head}a: &a y\n") + &many(&|n| format!("x{n}: *a\n"), 10_000)),
        ("deep lists", nest("[", "]", 100_000)),
        ("deep mappings", nest("{a: ", "}", 20_000)),
        ("deep below the limit", nest("[", "]", 39)),
        ("deep blocks", format!("{head}{}", many(&|n| format!("{}k:\n", " ".repeat(n)), 600))),
        ("long keys in each other", format!("{head}{steps}{}- x\n", "  ".repeat(39))),
        ("merge key", merge.to_owned()),
        ("merge of itself", format!("{head}x: &a\n  <<: *a\n")),
        ("many keys", head.to_owned() + &many(&|n| format!("k{n}: 1\n"), 20_000)),
        ("long key over many elements", long_key),
        ("long number", format!("muster: {}\nplatform: p\n", "9".repeat(200_000))),
        ("long tag", format!("muster: !{} 1\nplatform: p\n", "t".repeat(200_000))),
        ("binary tag", "muster: !!binary AAAA\nplatform: p\n".to_owned()),
        ("foreign tag", "muster: !!python/object:os.system 1\nplatform: p\n".to_owned()),
        ("second document", "muster: 1\nplatform: p\n---\nmuster: 1\nplatform: q\n".to_owned()),
        ("raw NUL", "muster: 1\nplatform: p\0\n".to_owned()),
        ("NUL, then more", "muster: 1\nplatform: p\n\0services: 7\n".to_owned()),
        ("after the end", "muster: 1\nplatform: p\n...\nservices: 7\n".to_owned()),
        ("tabs", "muster: 1\nplatform: p\nmesh:\n\tport: 1\n".to_owned()),
        ("open quote", format!("muster: 1\nplatform: \"{}\n", "x".repeat(100_000))),
        ("complex key", "muster: 1\nplatform: p\n? [a, b]\n: c\n".to_owned()),
        ("number as key", "muster: 1\nplatform: p\nservices:\n  7: {kind: app}\n".to_owned()),
        ("nothing", String::new()),
        ("only a comment", "# muster: 1\n".to_owned()),
        ("only a list", "- muster: 1\n".to_owned()),
    ]
}

#[test]
fn bombs_are_refused_quickly_and_in_words() {
    for (name, yaml) in bombs() {
        let found = verdict(&yaml).unwrap_or_else(|why| panic!("{name}: {why}"));
        sample("bomb", name, "", &found);
        let found = found.unwrap_or_else(|| panic!("{name}: accepted"));
        assert!(!found.is_empty() && found.len() <= 100, "{name}: {} mistakes", found.len());
        let lines = yaml.lines().count() as u64 + 1;
        for one in found {
            assert!(!one.message.is_empty() && !one.help.is_empty(), "{name}: {one:?}");
            assert!((1..=lines).contains(&one.line), "{name}: line {} of {lines}", one.line);
            let size = one.message.len() + one.help.len() + one.path.len();
            assert!(size < 4_000, "{name}: {size} bytes of words");
        }
    }
}

/// xorshift64*: the same noise for the same seed.
struct Noise(u64);

impl Noise {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most
    }
}

const WORDS: &[&str] = &[
    "muster",
    "platform",
    "services",
    "kind",
    "app",
    "postgres",
    ": ",
    "\n",
    "\n  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<",
    "!!int ",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "#",
    "---\n",
    "...\n",
    "\0",
    "\t",
    "\u{feff}",
    "\u{1f980}",
    "~",
    "null",
    "1",
    "-1",
    "1e999",
    ".nan",
    "0x7f",
    "30s",
    "2GiB",
    "${secret:x}",
    "../",
    "? ",
    ", ",
    "%YAML 1.2\n",
];

/// A valid file with a few places cut, doubled or overwritten, or words in any order.
fn noisy(noise: &mut Noise, files: &[(String, String)]) -> String {
    let mut text =
        if noise.below(3) == 0 { String::new() } else { files[noise.below(files.len())].1.clone() };
    for _ in 0..=noise.below(8) {
        let mut at = noise.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        match noise.below(4) {
            0 => text.truncate(at),
            1 => text = text[at..].to_owned() + &text[..at],
            _ => (0..=noise.below(6)).for_each(|_| text.insert_str(at, WORDS[noise.below(WORDS.len())])),
        }
    }
    text
}

#[test]
fn noise_never_panics_and_is_judged_quickly() {
    let seed = std::env::var("MUSTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let files = valid();
    let mut refused = 0;
    for run in 0..1_500_u64 {
        let mut noise = Noise(seed + run * 0x9e37_79b9 + 1);
        let text = noisy(&mut noise, &files);
        match verdict(&text) {
            Ok(found) => refused += u64::from(found.is_some_and(|found| !found.is_empty())),
            Err(why) => panic!("seed {seed} run {run}: {why}:\n{text}"),
        }
    }
    println!("count class=\"noise\" seed={seed} runs=1500 refused={refused}");
    assert!(refused > 1_000, "{refused}");
}
