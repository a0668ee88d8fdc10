//! The mutations that make another valid file, or whose mistake is rightly told at another line; each with the reason.

/// One reason.
#[derive(Debug)]
pub struct Rule {
    /// A class, or several separated by `|`.
    pub class: &'static str,
    /// Paths in words, separated by spaces; `*` stands for one step.
    pub paths: &'static str,
    /// What was done: any of these, separated by `|`; empty = anything.
    pub how: &'static str,
    /// Refused, but told at another line; otherwise valid.
    pub elsewhere: bool,
    /// The reason, printed when nothing needs the rule any more.
    pub why: &'static str,
}

const fn valid(class: &'static str, paths: &'static str, how: &'static str, why: &'static str) -> Rule {
    Rule { class, paths, how, elsewhere: false, why }
}

const fn elsewhere(class: &'static str, paths: &'static str, why: &'static str) -> Rule {
    Rule { class, paths, how: "", elsewhere: true, why }
}

const OPTIONAL: &str = "detection services mesh mesh.* networks.*.egress services.* \
    services.*.mode services.*.members services.*.network services.*.image services.*.etcd_image \
    services.*.proxy_image services.*.synchronous services.*.parameters services.*.parameters.* services.*.users \
    services.*.databases services.*.databases.*.owner services.*.place services.*.place.* services.*.place.labels.* \
    services.*.survive services.*.resources services.*.resources.* services.*.update services.*.update.* \
    services.*.replace_after services.*.renamed_from services.*.command services.*.env services.*.env.* \
    services.*.files services.*.files.*.mode services.*.ports services.*.ports.*.protocol \
    services.*.ports.*.audience services.*.networks services.*.volumes services.*.replicas services.*.user \
    services.*.probe services.*.probe.every services.*.probe.timeout services.*.probe.http.path services.*.uses \
    services.*.uses.*.user services.*.stop services.*.stop.* services.*.shards services.*.node_timeout services.*.hosts \
    services.*.drives services.*.gcache services.*.buckets services.*.buckets.*.versioning services.*.users.*.access \
    services.*.users.*.buckets";

const FREE_TEXT: &str =
    "services.*.command.* services.*.probe.exec.argv.* services.*.files.*.content services.*.env.*";

/// All of them.
pub const RULES: &[Rule] = &[
    valid("missing", OPTIONAL, "", "has a default, or is something more that the platform shall have"),
    valid(
        "empty",
        "services services.*.resources services.*.update services.*.place services.*.place.labels services.*.env \
         services.*.parameters services.*.stop mesh",
        "mapping",
        "a mapping of nothing: the defaults",
    ),
    valid(
        "empty",
        "services.*.command services.*.files services.*.ports services.*.volumes services.*.uses services.*.users \
         services.*.databases services.*.place.hosts services.*.buckets services.*.users.*.buckets",
        "list",
        "a list of nothing: the defaults",
    ),
    valid("empty", FREE_TEXT, "text", "programs take empty texts"),
    valid(
        "odd text|path as name|huge",
        FREE_TEXT,
        "",
        "texts are the program's own; NUL is refused where it cannot be passed",
    ),
    valid(
        "path as name",
        "services.*.files.*.path services.*.volumes.*.path services.*.probe.http.path",
        "/etc/passwd|/muster/../x",
        "absolute paths are what is asked for; `..` is refused in the container's, and is the program's own in a request",
    ),
    valid("odd text|odd key", "services.*.place.labels.*", "capitals", "labels may have capitals"),
    valid(
        "path as name",
        "services.*.place.labels.*",
        "",
        "labels are any visible text; they are compared and nothing else",
    ),
    valid(
        "path as key",
        "services.*.place.labels.*",
        "",
        "labels are any visible text; they are compared and nothing else",
    ),
    valid(
        "unknown key",
        "services.* services.*.env.* services.*.place.labels.*",
        "",
        "the key is a name that the operator chooses",
    ),
    valid("odd key", "services.*.env.*", "capitals", "the key is a name that the operator chooses"),
    valid("path as key", "services.*.parameters.*", "a.b", "a parameter of an extension"),
    valid("wrong type", "services.*.resources.cpus", "number|fraction", "cores are whole or not"),
    valid("out of range", "services.*.replace_after services.*.update.soak", "0s", "at once"),
    valid(
        "wrong unit",
        "services.*.parameters.*",
        "\"7\"|5|5min",
        "PostgreSQL reads quoted numbers, and its own units",
    ),
    valid("wrong type", "services.*.parameters.*", "number", "a number in the parameter's own unit"),
    valid(
        "out of range",
        "services.*.parameters.*",
        "0s|0|4294967297",
        "within PostgreSQL's range of that parameter",
    ),
    valid("odd text", "services.*.parameters.*", "space before", "PostgreSQL skips the space"),
    elsewhere("missing|empty|unknown key", "networks networks.*", "told where the network is used"),
    elsewhere(
        "missing|empty",
        "services.*.buckets services.*.buckets.*",
        "told where a user's bucket is not there",
    ),
    elsewhere(
        "missing|empty|unknown key",
        "services.*.users services.*",
        "told where the service or its user is used",
    ),
    elsewhere(
        "missing",
        "services.*.ports.*.audience services.*.networks",
        "told at the field that needs it",
    ),
];

/// The first rule that fits.
pub fn rule(class: &str, path: &str, how: &str, elsewhere: bool) -> Option<(usize, &'static Rule)> {
    RULES.iter().enumerate().find(|(_, rule)| {
        rule.elsewhere == elsewhere
            && rule.class.split('|').any(|one| one == class)
            && rule.paths.split_whitespace().any(|wanted| fits(wanted, path))
            && (rule.how.is_empty() || rule.how.split('|').any(|one| one == how))
    })
}

fn fits(wanted: &str, path: &str) -> bool {
    let (wanted, steps) = (wanted.split('.'), path.split('.'));
    wanted.clone().count() == steps.clone().count() && wanted.zip(steps).all(|(a, b)| a == "*" || a == b)
}
