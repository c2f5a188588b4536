//! The packages that a core module's component type is made of. Whoever makes a component of the module goes through them, from each to those it
//! uses, as deep as they go, and on a circle would end the whole process: so they are looked at first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentType};
use wasmparser::types::TypesRef;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// Packages of one module. The contract and what is known of WASI are not a dozen.
const MAX_PACKAGES: usize = 256;
/// How a component type begins that is no component itself.
const OLD_FORMAT: u8 = 3;

/// The packages that each package uses, by name: the types of several sections are put together by name.
#[derive(Default)]
struct Uses(BTreeMap<String, BTreeSet<String>>);

/// # Errors
/// What keeps it from being made a component. What cannot be read is left to the encoder to name.
pub(crate) fn check(module: &[u8]) -> Result<(), String> {
    let mut uses = Uses::default();
    for payload in Parser::new(0).parse_all(module) {
        let Ok(payload) = payload else { break };
        let Payload::CustomSection(section) = payload else { continue };
        if !section.name().starts_with("component-type") {
            continue;
        }
        if section.data().first() == Some(&OLD_FORMAT) {
            return Err("its component type has a format of long ago; build it with a newer toolchain".into());
        }
        let Ok(types) = Validator::new_with_features(WasmFeatures::all()).validate_all(section.data()) else {
            continue;
        };
        let types = types.as_ref();
        for index in 0..types.component_type_count() {
            let ComponentAnyTypeId::Component(outer) = types.component_any_type_at(index) else { continue };
            for (name, item) in &types[outer].exports {
                if let ComponentEntityType::Component(world) = item.ty {
                    uses.of_world(types, name, &types[world]);
                }
            }
        }
        if uses.0.len() > MAX_PACKAGES {
            return Err(format!("its component type is made of more than {MAX_PACKAGES} packages"));
        }
    }
    uses.check_circles()
}

impl Uses {
    fn note(&mut self, package: &str, used: &str) {
        if package != used {
            self.0.entry(used.to_owned()).or_default();
            self.0.entry(package.to_owned()).or_default().insert(used.to_owned());
        }
    }

    fn of_world(&mut self, types: TypesRef<'_>, name: &str, world: &ComponentType) {
        let home = package(name).unwrap_or_default();
        // Whose each type is: of the interface that had it first.
        let mut owners = HashMap::new();
        for (name, item) in world.imports.iter().chain(&world.exports) {
            match item.ty {
                ComponentEntityType::Instance(interface) => {
                    let package = package(name).unwrap_or_else(|| home.clone());
                    self.note(&home, &package);
                    for item in types[interface].exports.values() {
                        self.of_type(types, &package, item.ty, &mut owners);
                    }
                }
                ty => self.of_type(types, &home, ty, &mut owners),
            }
        }
    }

    fn of_type(
        &mut self,
        types: TypesRef<'_>,
        package: &str,
        ty: ComponentEntityType,
        owners: &mut HashMap<ComponentAnyTypeId, String>,
    ) {
        let ComponentEntityType::Type { referenced, created } = ty else { return };
        let mut names = std::iter::successors(Some(referenced), |ty| types.peel_alias(*ty));
        if let Some(owner) = names.find_map(|ty| owners.get(&ty)) {
            self.note(package, owner);
        }
        owners.insert(created, package.to_owned());
    }

    fn check_circles(mut self) -> Result<(), String> {
        while !self.0.is_empty() {
            let left: BTreeSet<String> = self.0.keys().cloned().collect();
            self.0.retain(|_, used| used.iter().any(|name| left.contains(name)));
            if self.0.len() == left.len() {
                let names: Vec<String> = left.into_iter().take(3).collect();
                return Err(format!(
                    "packages of its component type use each other in a circle; look at {}",
                    names.join(", ")
                ));
            }
        }
        Ok(())
    }
}

/// The package of an interface or world: `wasi:io@0.2.6` of `wasi:io/poll@0.2.6`. `None`: it has no name of its own.
fn package(name: &str) -> Option<String> {
    let (package, rest) = name.split_once('/')?;
    Some(match rest.split_once('@') {
        Some((_, version)) => format!("{package}@{version}"),
        None => package.to_owned(),
    })
}
