//! A few seeds hold, are repeatable, and see every planted bug. `muster-sim` runs the many.

use muster_sim::plant::Plant;
use muster_sim::scenario::run;

#[test]
fn a_few_seeds_hold() {
    for seed in 0..8 {
        if let Err(failure) = run(seed, None) {
            panic!("seed {seed} at {} ms: {}\n{}", failure.at, failure.what, failure.history.join("\n"));
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    let once = run(3, None).unwrap();
    let again = run(3, None).unwrap();
    assert_eq!(
        (once.entries, once.refused, once.repaired_ms),
        (again.entries, again.refused, again.repaired_ms)
    );
}

#[test]
fn every_planted_bug_is_caught() {
    for (name, plant) in Plant::ALL {
        assert!((0..250).any(|seed| run(seed, Some(plant)).is_err()), "{name} is not caught");
    }
}
