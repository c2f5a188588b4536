//! Everything follows from the log: what comes up from the log alone is what came up from a checkpoint.

use sluice_model::QueueOffset;
use sluice_storage::{Disk, fake::FakeDisk};

use super::{Checked, is_whole, pipeline, positions};
use crate::{
    ensure,
    world::{Mistake, World},
};

pub fn check(world: &World, disk: &FakeDisk) -> Checked {
    if !is_whole(world) {
        return Ok(());
    }
    let rebuilt = World::open(&only_the_log(disk), world.oracle.clone(), world.now, Mistake::None);
    let rebuilt = rebuilt.map_err(|error| format!("the log alone does not come up: {error}"))?;
    let (old, new) = (state(world), state(&rebuilt));
    for (old, new) in old.iter().zip(&new) {
        ensure!(old == new, "from a checkpoint:\n{old}\nfrom the log:\n{new}");
    }
    ensure!(old.len() == new.len(), "{} things from a checkpoint, {} from the log", old.len(), new.len());
    // Offsets committed and not recorded are in the checkpoint only.
    positions::check(&rebuilt)?;
    pipeline::check(&rebuilt, super::Phase::Recovered)
}

/// All that can be seen of a broker but consumers' offsets, a line a thing.
pub fn state(world: &World) -> Vec<String> {
    let reader = &world.opened.reader;
    let (version, mut topics) = reader.topics();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut groups = reader.groups();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    let mut lines = vec![format!("topics {version}")];
    lines.extend(groups.iter().map(|group| format!("{group:?}")));
    lines.extend(reader.halves(QueueOffset(0), usize::MAX).iter().map(|half| format!("{half:?}")));
    lines.push(format!("leased {}", reader.leased()));
    for (name, document) in reader.documents("kind") {
        lines.push(format!("{name} {document:?} {:?}", reader.document("kind", &name)));
    }
    for topic in topics {
        lines.push(format!("{topic:?}"));
        // Which positions share a record is chance; what they say is compared elsewhere.
        let offsets = topic.name.as_str() == "rmq_sys_SLUICE_OFFSETS";
        for (queue, seen) in world.contents(topic.name.as_str()).into_iter().enumerate() {
            let places = seen.iter().map(|seen| if offsets { format!("{}", seen.at) } else { format!("{seen:?}") });
            lines.extend(places.map(|place| format!("{}/{queue} {place}", topic.name)));
        }
    }
    lines
}

fn only_the_log(disk: &FakeDisk) -> FakeDisk {
    let copy = FakeDisk::new();
    copy.create_dir("commitlog").expect("a directory");
    for path in disk.paths().iter().filter(|path| path.starts_with("commitlog/")) {
        let content = disk.content(path).expect("a file of the log");
        let file = copy.create(path, content.len() as u64).expect("a file");
        file.write_at(&content, 0).expect("its bytes");
    }
    copy
}
