//! `muster init`: a commented spec to start from. Needs no platform.

use anyhow::Result;
use muster_model::ids::Name;
use muster_runtime::context::Context;

use crate::app::App;
use crate::args::{InitArgs, Profile};
use crate::contexts::Contexts;
use crate::exit::Exit;

/// What stands in the templates for the platform's name.
const PLACEHOLDER: &str = "PLATFORM";

pub fn run(app: &App, args: &InitArgs) -> Result<Exit> {
    let platform = args.platform.clone().or_else(|| of_context(app));
    let name = platform.as_ref().map_or("my-platform", Name::as_str);
    app.console.say(template(args.profile).replace(PLACEHOLDER, name))?;
    if platform.is_none() {
        app.console.note("write the name that was given at `muster-coordinator init` for `platform:`")?;
    }
    Ok(Exit::Ok)
}

fn of_context(app: &App) -> Option<Name> {
    let path = Contexts::of_user().ok()?.resolve(app.globals.context.as_deref()).ok()?;
    Context::load(&path).ok().map(|context| context.platform)
}

const fn template(profile: Profile) -> &'static str {
    match profile {
        Profile::Minimal => include_str!("../profiles/minimal.yaml"),
        Profile::Standard => include_str!("../profiles/standard.yaml"),
        Profile::Ha => include_str!("../profiles/ha.yaml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Paint;
    use crate::spec_file::SpecFile;
    use clap::ValueEnum;
    use muster_core::kinds;

    #[test]
    fn every_profile_is_a_valid_spec_of_the_kinds_it_names() {
        for profile in Profile::value_variants() {
            let yaml = template(*profile).replace(PLACEHOLDER, "shop");
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &yaml).unwrap();
            let file = SpecFile::read(file.path().to_str().unwrap(), Paint::new(false)).unwrap();
            let spec = muster_spec::parse(&file.filled)
                .unwrap_or_else(|wrong| panic!("{profile:?}: {wrong:?}"))
                .spec;
            assert_eq!(spec.platform.as_str(), "shop");
            assert!(!spec.services.is_empty());
            for (name, service) in &spec.services {
                let kind = kinds::kind(service.kind.as_str()).unwrap();
                assert_eq!(kind.validate(name, service, &spec), [], "{profile:?} {name}");
            }
        }
    }
}
