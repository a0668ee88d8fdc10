//! A push from its beginning to its end, by a clock of the test's own.

use super::*;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn host(number: usize) -> HostId {
    HostId::new(format!("{number:016x}").as_str()).unwrap()
}

fn order(sha256: &str, hosts: usize) -> Order {
    let named = |number| (host(number), Name::new(format!("h{number}").as_str()).unwrap());
    Order {
        sha256: sha256.to_owned(),
        size: 1000,
        names: vec!["app:1".to_owned()],
        ids: Vec::new(),
        hosts: (1..=hosts).map(named).collect(),
        deadline: at(1800),
    }
}

fn states(pushes: &Pushes, sha256: &str) -> Vec<PushState> {
    pushes.view(sha256, 0, at(0)).unwrap().hosts.iter().map(|host| host.state).collect()
}

#[test]
fn hosts_are_asked_first_and_fetch_a_few_at_a_time_once_all_is_here() {
    let (pushes, hosts): (Pushes, Vec<HostId>) = (Pushes::default(), (1..=6).map(host).collect());
    pushes.begin(order("a", 6), at(0)).unwrap();
    let asked = pushes.due(&hosts, at(0));
    assert!(asked.len() == 6 && asked.iter().all(|(_, offer)| !offer.ready));
    assert!(pushes.due(&hosts, at(1)).is_empty());
    pushes.answered(&hosts[0], "a", PushState::Had, "", at(1));
    for host in &hosts[1..] {
        pushes.answered(host, "a", PushState::Wanted, "", at(1));
    }
    assert!(pushes.due(&hosts, at(2)).is_empty(), "nothing is here yet");
    assert!(!pushes.may_fetch(&hosts[1], "a", 0, at(2)));
    pushes.arrived("a", true);
    let told = pushes.due(&hosts, at(3));
    assert_eq!(told.len(), AT_ONCE);
    assert!(told.iter().all(|(_, offer)| offer.ready));
    assert!(pushes.may_fetch(&hosts[1], "a", 256, at(3)));
    assert!(!pushes.may_fetch(&hosts[5], "a", 0, at(3)), "it is not its turn");
    assert!(!pushes.may_fetch(&host(9), "a", 0, at(3)), "it is not meant for that host");
    pushes.answered(&hosts[1], "a", PushState::Loading, "", at(4));
    assert_eq!(pushes.due(&hosts, at(4)).len(), 1, "the next one's turn");
    for host in &hosts[1..] {
        pushes.answered(host, "a", PushState::Loaded, "", at(5));
    }
    pushes.answered(&hosts[1], "a", PushState::Failed, "late", at(6));
    assert_eq!(states(&pushes, "a")[1], PushState::Loaded);
    assert_eq!(pushes.over(at(6)), ["a"]);
    assert!(pushes.over(at(700)).is_empty() && pushes.view("a", 0, at(700)).is_none());
}

#[test]
fn a_host_that_says_nothing_is_told_again_and_one_that_is_away_is_given_up() {
    let (pushes, hosts) = (Pushes::default(), [host(1)]);
    pushes.begin(order("a", 2), at(0)).unwrap();
    assert_eq!(pushes.due(&hosts, at(0)).len(), 1);
    assert_eq!(pushes.due(&hosts, at(6)).len(), 1);
    pushes.answered(&hosts[0], "a", PushState::Wanted, "", at(7));
    pushes.arrived("a", true);
    assert_eq!(pushes.due(&hosts, at(8)).len(), 1);
    assert!(pushes.due(&hosts, at(12)).is_empty());
    assert_eq!(states(&pushes, "a"), [PushState::Receiving, PushState::Asked]);
    assert_eq!(pushes.due(&hosts, at(24)).len(), 1);
    assert_eq!(states(&pushes, "a"), [PushState::Receiving, PushState::Failed]);
    assert!(pushes.due(&hosts, at(1800)).is_empty());
    let view = pushes.view("a", 0, at(1800)).unwrap();
    assert!(view.hosts.iter().all(|host| host.state == PushState::Failed));
    assert!(view.hosts[1].text.contains("not connected") && view.hosts[0].text.contains("in time"));
}

#[test]
fn a_repeated_push_goes_on_and_failed_hosts_are_asked_again() {
    let pushes = Pushes::default();
    pushes.begin(order("a", 2), at(0)).unwrap();
    pushes.answered(&host(1), "a", PushState::Had, "", at(1));
    pushes.answered(&host(2), "a", PushState::Wanted, "", at(1));
    pushes.begin(order("a", 2), at(2)).unwrap();
    assert_eq!(states(&pushes, "a"), [PushState::Had, PushState::Wanted]);
    pushes.arrived("a", false);
    assert!(pushes.view("a", 0, at(3)).unwrap().hosts[1].text.contains("not what was sent"));
    pushes.begin(order("a", 2), at(4)).unwrap();
    assert_eq!(states(&pushes, "a"), [PushState::Asked, PushState::Asked]);
}

#[test]
fn only_two_are_under_way_unless_their_operators_are_gone() {
    let pushes = Pushes::default();
    pushes.begin(order("a", 1), at(0)).unwrap();
    pushes.begin(order("b", 1), at(0)).unwrap();
    assert!(pushes.begin(order("c", 1), at(10)).unwrap_err().contains("are being pushed"));
    assert_eq!(pushes.expected("a", at(100)), Some(1000));
    pushes.begin(order("c", 1), at(150)).unwrap();
    assert!(pushes.begin(order("d", 1), at(151)).is_err());
}

#[test]
fn an_agent_that_does_not_know_the_question_is_given_up_but_not_one_that_is_busy() {
    let (pushes, hosts) = (Pushes::default(), [host(1), host(2)]);
    pushes.begin(order("a", 1), at(0)).unwrap();
    pushes.answered(&hosts[0], "a", PushState::Loading, "", at(1));
    pushes.begin(order("b", 2), at(1)).unwrap();
    assert_eq!(pushes.due(&hosts, at(120)).len(), 3);
    assert_eq!(states(&pushes, "b"), [PushState::Asked, PushState::Asked]);
    assert_eq!(pushes.due(&hosts, at(121)).len(), 0);
    assert_eq!(states(&pushes, "b"), [PushState::Asked, PushState::Failed]);
}
