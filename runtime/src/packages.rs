//! Packages of a component type that need each other in a circle. What makes components of core modules would go round for ever among
//! them, until the stack ends and the process with it; so they are looked for first.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentType,
    ComponentTypeDeclaration as Declaration, ComponentTypeRef, InstanceTypeDeclaration, Parser, Payload, TypeBounds,
};

/// Component types within each other.
const MAX_DEPTH: usize = 8;

/// By package, the others that its interfaces take types from, or that its worlds name.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// # Errors
/// The circle, or what cannot be followed. What is not valid at all is left to others to name.
pub(crate) fn check(module: &[u8]) -> Result<(), String> {
    let mut needs = Needs::new();
    for payload in Parser::new(0).parse_all(module) {
        let Ok(Payload::CustomSection(section)) = payload else { continue };
        if !section.name().starts_with("component-type") {
            continue;
        }
        if !section.data().starts_with(b"\0asm") {
            return Err("expected the form that today's toolchains write".to_owned());
        }
        for payload in Parser::new(0).parse_all(section.data()) {
            let Ok(Payload::ComponentTypeSection(types)) = payload else { continue };
            for ty in types.into_iter().filter_map(Result::ok) {
                if let ComponentType::Component(declarations) = ty {
                    Scope::default().read(&declarations, &mut needs, MAX_DEPTH)?;
                }
            }
        }
    }
    // Takes away those that need nothing of what is left, until nothing is left or nobody is without need.
    while !needs.is_empty() {
        let left: BTreeSet<String> = needs.keys().cloned().collect();
        needs.retain(|_, needed| needed.iter().any(|name| left.contains(name)));
        if needs.len() == left.len() {
            let circle: Vec<&str> = needs.keys().map(String::as_str).collect();
            return Err(format!("packages that need each other in a circle: {}", circle.join(", ")));
        }
    }
    Ok(())
}

/// What a component type has named so far.
#[derive(Default)]
struct Scope {
    /// Of each type, the packages that it comes from; of an interface's, those that its own types come from; of a world's, those it names.
    types: Vec<BTreeSet<String>>,
    /// Of each instance, its package.
    instances: Vec<String>,
}

impl Scope {
    /// Gives the packages of the interfaces that are named.
    fn read(
        mut self,
        declarations: &[Declaration<'_>],
        needs: &mut Needs,
        depth: usize,
    ) -> Result<BTreeSet<String>, String> {
        if depth == 0 {
            return Err(format!("types within types: at most {MAX_DEPTH} deep"));
        }
        for declaration in declarations {
            match declaration {
                Declaration::Type(ComponentType::Instance(inner)) => {
                    let from = self.taken_by(inner)?;
                    self.types.push(from);
                }
                Declaration::Type(ComponentType::Component(inner)) => {
                    let named = Self::default().read(inner, needs, depth - 1)?;
                    self.types.push(named);
                }
                // It may be made of any type before it.
                Declaration::Type(_) => self.types.push(self.types.iter().flatten().cloned().collect()),
                Declaration::Alias(ComponentAlias::InstanceExport {
                    kind: ComponentExternalKind::Type,
                    instance_index,
                    ..
                }) => {
                    self.types.push(self.instances.get(*instance_index as usize).cloned().into_iter().collect());
                }
                Declaration::Alias(_) => return Err("expected no outer types around a world".to_owned()),
                Declaration::Import(import) => self.named(import.name.name, import.ty, needs),
                Declaration::Export { name, ty, .. } => self.named(name.name, *ty, needs),
                Declaration::CoreType(_) => {}
            }
        }
        Ok(self.instances.into_iter().collect())
    }

    /// The packages of the types around an instance that it takes into itself.
    fn taken_by(&self, inner: &[InstanceTypeDeclaration<'_>]) -> Result<BTreeSet<String>, String> {
        let mut from = BTreeSet::new();
        for declaration in inner {
            match declaration {
                InstanceTypeDeclaration::Alias(ComponentAlias::Outer {
                    kind: ComponentOuterAliasKind::Type,
                    count: 1,
                    index,
                }) => from.extend(self.types.get(*index as usize).into_iter().flatten().cloned()),
                InstanceTypeDeclaration::Alias(ComponentAlias::InstanceExport { .. })
                | InstanceTypeDeclaration::Type(ComponentType::Instance(_) | ComponentType::Component(_)) => {
                    return Err("expected no instances within an interface".to_owned());
                }
                InstanceTypeDeclaration::Alias(_) => return Err("expected types of the world around it".to_owned()),
                _ => {}
            }
        }
        Ok(from)
    }

    fn named(&mut self, name: &str, ty: ComponentTypeRef, needs: &mut Needs) {
        let of = |types: &[BTreeSet<String>], index: u32| types.get(index as usize).cloned().unwrap_or_default();
        match ty {
            ComponentTypeRef::Instance(index) | ComponentTypeRef::Component(index) => {
                // `a:b/c@1.0.0` is of the package `a:b@1.0.0`; a plain name is of the world's own.
                let (path, version) = name.split_once('@').unwrap_or((name, ""));
                let package = path.split_once('/').map_or("", |(package, _)| package);
                let package = [package, version].join(if version.is_empty() { "" } else { "@" });
                let mut taken = of(&self.types, index);
                taken.remove(&package);
                needs.entry(package.clone()).or_default().extend(taken);
                if matches!(ty, ComponentTypeRef::Instance(_)) {
                    self.instances.push(package);
                }
            }
            ComponentTypeRef::Type(TypeBounds::Eq(index)) => self.types.push(of(&self.types, index)),
            ComponentTypeRef::Type(TypeBounds::SubResource) => self.types.push(BTreeSet::new()),
            _ => {}
        }
    }
}
