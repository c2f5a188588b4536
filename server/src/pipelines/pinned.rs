//! A pipeline's chain as it runs now, for those who run messages through it once more.

use std::sync::Arc;

use super::{Pipelines, spec::Checked};
use crate::{
    failure::{Failure, Result},
    observer::Logs,
    plugins::Wanted,
};

impl Pipelines {
    /// The chain of a pipeline as it runs now, or would when resumed; with `plugin` in the place of the step of that name.
    pub fn pinned(&self, name: &str, plugin: Option<&str>) -> Result<(Checked, Arc<Logs>)> {
        let (_, stored) = self.stored(name)?;
        let mut revision = stored.live;
        if let Some(reference) = plugin {
            let (wanted, mut found) = (Wanted::parse(reference).name, false);
            for (step, digest) in revision.spec.steps.iter_mut().zip(&mut revision.plugins) {
                if Wanted::parse(&step.plugin).name == wanted {
                    found = true;
                    reference.clone_into(&mut step.plugin);
                    self.plugins.resolve(reference).map_err(of_plugin)?.digest().clone_into(digest);
                }
            }
            if !found {
                let text = format!("plugin: no step of pipeline \"{name}\" is {reference:?}");
                return Err(Failure::invalid("plugin", text));
            }
        }
        let checked = revision.check(&self.shell, &self.plugins);
        let checked = if plugin.is_some() { checked.map_err(of_plugin) } else { checked }?;
        Ok((checked, self.logs(name)?))
    }
}

fn of_plugin(failure: Failure) -> Failure {
    Failure { field: Some("plugin".to_owned()), ..failure }
}
