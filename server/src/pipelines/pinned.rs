//! A pipeline's chains as they run now, for those who run messages through them once more.

use std::sync::Arc;

use super::{Candidate, Mode, Pipelines, Versions};
use crate::{
    failure::{Failure, Result},
    observer::Logs,
    plugins::Wanted,
};

impl Pipelines {
    /// What a pipeline runs in which queue of its source, or would when resumed; with `plugin` in the place of the steps of that name.
    pub fn pinned(&self, name: &str, plugin: Option<&str>) -> Result<(Versions, Arc<Logs>)> {
        let (_, mut stored) = self.stored(name)?;
        if let Some(reference) = plugin {
            let canary =
                stored.candidate.iter_mut().filter(|Candidate { mode, .. }| matches!(mode, Mode::Canary { .. }));
            let revisions = std::iter::once(&mut stored.live).chain(canary.map(|candidate| &mut candidate.revision));
            let (wanted, mut found) = (Wanted::parse(reference).name, false);
            for revision in revisions {
                for (step, digest) in revision.spec.steps.iter_mut().zip(&mut revision.plugins) {
                    if Wanted::parse(&step.plugin).name == wanted {
                        found = true;
                        reference.clone_into(&mut step.plugin);
                        self.plugins.resolve(reference).map_err(of_plugin)?.digest().clone_into(digest);
                    }
                }
            }
            if !found {
                let text = format!("plugin: no step of pipeline \"{name}\" is {reference:?}");
                return Err(Failure::invalid("plugin", text));
            }
        }
        let versions = self.versions(&stored);
        let versions = if plugin.is_some() { versions.map_err(of_plugin) } else { versions }?;
        Ok((versions, self.logs(name)?))
    }
}

fn of_plugin(failure: Failure) -> Failure {
    Failure { field: Some("plugin".to_owned()), ..failure }
}
