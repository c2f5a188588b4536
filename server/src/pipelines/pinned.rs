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
        let (mut spec, digests, logs) = {
            let by_name = self.by_name.lock();
            let known = by_name.get(name).ok_or_else(|| Failure::not_found("pipeline", name))?;
            (known.spec.clone(), known.digests.clone(), known.logs.clone())
        };
        let replaced = plugin.map(|reference| (reference, Wanted::parse(reference).name));
        let mut found = replaced.is_none();
        let mut labels = Vec::with_capacity(spec.steps.len());
        for (at, step) in spec.steps.iter_mut().enumerate() {
            let own = Wanted::parse(&step.plugin).name;
            match (&replaced, digests.get(at)) {
                (Some((reference, of)), _) if *of == own => {
                    found = true;
                    step.plugin = (*reference).to_owned();
                    labels.push(step.plugin.clone());
                }
                // A version that came since is not what the pipeline runs.
                (_, Some(digest)) => labels.push(std::mem::replace(&mut step.plugin, format!("{own}@sha256:{digest}"))),
                (_, None) => labels.push(step.plugin.clone()),
            }
        }
        if !found {
            let text = format!("plugin: no step of pipeline \"{name}\" is {:?}", plugin.unwrap_or_default());
            return Err(Failure::invalid("plugin", text));
        }
        let mut checked = spec.check(&self.shell, &self.plugins).map_err(|failure| match plugin {
            Some(_) => Failure { field: Some("plugin".to_owned()), ..failure },
            None => failure,
        })?;
        checked.steps.iter_mut().zip(labels).for_each(|(step, label)| step.name = label);
        Ok((checked, logs))
    }
}
