//! `/plugins`: uploading components, and what the gate found in them.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use sluice_model::{Kind, limits};
use sluice_runtime::{Columns, Manifest, Outputs, Report};

use super::{
    Rest, bench, blocking,
    input::{self, Guard, Path, Query},
    page::{Page, PageQuery},
    problem::{Answer, Problem},
    routes::Routes,
    tagged, trial,
};
use crate::{
    failure::{Failure, Result},
    plugins::Version,
};

/// Largest request with a component. The gate's own limit is lower and says more.
const REQUEST_LIMIT: usize = limits::SYSTEM_BODY_LEN;

/// What the upload gate found.
#[derive(Debug, Serialize, JsonSchema)]
struct ReportView {
    name: String,
    version: String,
    /// `sha256:` and 64 hex digits: the plugin's identity.
    digest: String,
    /// `filter`, `transform`, `process`, `check-transaction`
    roles: Vec<&'static str>,
    imports: Vec<ImportView>,
    /// Bytes of the component.
    size: u64,
    compile_ms: u64,
    manifest: ManifestView,
}

/// An interface that the component imports.
#[derive(Debug, Serialize, JsonSchema)]
struct ImportView {
    name: String,
    /// The broker provides it.
    granted: bool,
    /// What has to be named in `grants` where the plugin is used, or its calls are refused: `http`, `topics` or `secrets`; null when nothing
    /// has to.
    needs_grant: Option<&'static str>,
}

impl ImportView {
    fn of(name: &str) -> Self {
        let interface = name.strip_prefix("sluice:plugin/").and_then(|rest| rest.split('@').next());
        let needs_grant = match interface {
            Some("http") => Some("http"),
            Some("lookup") => Some("topics"),
            Some("secrets") => Some("secrets"),
            _ => None,
        };
        Self { name: name.to_owned(), granted: true, needs_grant }
    }
}

/// What a plugin says of itself.
#[derive(Debug, Serialize, JsonSchema)]
struct ManifestView {
    name: String,
    version: String,
    description: String,
    /// Columns of a batch that it reads.
    needs: Vec<&'static str>,
    /// Its outputs in order; null: one for each sink.
    outputs: Option<Vec<OutputView>>,
    params: Vec<ParamView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct OutputView {
    name: String,
    description: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ParamView {
    name: String,
    required: bool,
    /// JSON Schema of its value.
    schema: Value,
}

/// A plugin: the report on its newest version, all versions, and who uses it.
#[derive(Debug, Serialize, JsonSchema)]
struct PluginView {
    #[serde(flatten)]
    report: ReportView,
    /// The newest first.
    versions: Vec<VersionView>,
    used_by: Users,
}

#[derive(Debug, Serialize, JsonSchema)]
struct VersionView {
    version: String,
    digest: String,
    size: u64,
}

/// Who uses a plugin, or one version of it.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
struct Users {
    pipelines: Vec<String>,
    producer_groups: Vec<String>,
    /// Topics whose ingress it is part of.
    ingress: Vec<String>,
    /// `group/topic` that it is the filter of.
    filters: Vec<String>,
}

pub fn routes(routes: Routes) -> Routes {
    let wasm = "application/wasm";
    routes
        .serve(
            Method::GET,
            "/plugins",
            "List plugins.",
            |o| o.query::<PageQuery>().lists::<PluginView>("Plugins."),
            list,
        )
        .serve(
            Method::GET,
            "/plugins/{name}",
            "Describe a plugin.",
            |o| o.answers::<PluginView>(200, "The plugin."),
            one,
        )
        .serve(
            Method::PUT,
            "/plugins/{name}",
            "Upload a component. The same bytes again change nothing.",
            |o| {
                o.guarded()
                    .takes_bytes(wasm)
                    .answers::<ReportView>(200, "It was there already.")
                    .answers::<ReportView>(201, "A new version was taken in.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            "/plugins/{name}",
            "Delete a plugin with all its versions, if nothing uses it.",
            |o| o.guarded().empties("It is gone."),
            delete,
        )
        .serve(
            Method::GET,
            "/plugins/{name}/versions/{version}",
            "Describe one version: `1.2.3`, the newest `1` or `1.2`, or `sha256:…`.",
            |o| o.answers::<ReportView>(200, "The report on it."),
            version,
        )
        .serve(
            Method::DELETE,
            "/plugins/{name}/versions/{version}",
            "Delete one version, if nothing uses it.",
            |o| o.guarded().empties("It is gone."),
            delete_version,
        )
        .serve(
            Method::POST,
            "/plugins:check",
            "Pass a component through the gate without keeping it.",
            |o| o.takes_bytes(wasm).answers::<ReportView>(200, "It would be taken in."),
            check_unnamed,
        )
        .describe(Method::POST, "/plugins/{name}:check", "The same, under a name.", |o| {
            o.takes_bytes(wasm).answers::<ReportView>(200, "It would be taken in.")
        })
        .verbs("/plugins/{name}", verb)
}

async fn list(State(rest): State<Rest>, Query(query): Query<PageQuery>) -> Answer {
    let work = move || {
        let newest = rest.parts.plugins.newest();
        let (names, next) = query.pick(newest.iter().map(|version| version.name.clone()).collect())?;
        let items = names.iter().filter_map(|name| plugin_view(&rest, name).ok()).collect();
        Ok(Page { items, next })
    };
    Ok(Json(blocking(work).await?).into_response())
}

async fn one(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let view = blocking(move || plugin_view(&rest, &name)).await?;
    let tag = view.report.digest.clone();
    Ok(tagged(false, &tag, &view))
}

async fn version(State(rest): State<Rest>, Path((name, wanted)): Path<(String, String)>) -> Answer {
    let version = resolve(&rest, &name, &wanted)?;
    let view = report_view(&version.name, &version.report);
    Ok(tagged(false, &view.digest, &view))
}

/// A digest may come with or without its `sha256:`.
fn resolve(rest: &Rest, name: &str, wanted: &str) -> Result<Version> {
    let bare = wanted.len() == 64 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    let wanted = if bare { format!("sha256:{wanted}") } else { wanted.to_owned() };
    rest.parts.plugins.resolve(&format!("{name}@{wanted}"))
}

async fn put(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let guard = Guard::of(&headers)?;
    let component = input::body(body, &headers, REQUEST_LIMIT).await?;
    let plugins = rest.parts.plugins.clone();
    let work = move || {
        let known = plugins.versions(&name);
        guard.check(&name, known.last().map(tag).as_deref())?;
        let version = plugins.put(&name, component)?;
        let created = !known.iter().any(|known| known.digest() == version.digest());
        Ok((created, report_view(&version.name, &version.report)))
    };
    let (created, view) = blocking(work).await.map_err(refused)?;
    Ok(tagged(created, &view.digest.clone(), &view))
}

/// What the gate refuses carries the gate's code as its field; other failures name one of ours.
fn refused(failure: Failure) -> Problem {
    let of_gate = failure.kind == Kind::Invalid && failure.field.as_deref() != Some("name");
    if of_gate { Problem::refused(failure) } else { failure.into() }
}

async fn check_unnamed(State(rest): State<Rest>, headers: HeaderMap, body: Body) -> Answer {
    check(&rest, "unnamed".to_owned(), &headers, body).await
}

async fn check(rest: &Rest, name: String, headers: &HeaderMap, body: Body) -> Answer {
    let component = input::body(body, headers, REQUEST_LIMIT).await?;
    let plugins = rest.parts.plugins.clone();
    let view = blocking(move || {
        let (_, report) = plugins.check(&name, &component)?;
        Ok(report_view(&name, &report))
    });
    Ok(Json(view.await.map_err(refused)?).into_response())
}

async fn verb(State(rest): State<Rest>, Path(segment): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    match input::verb(&segment) {
        Some((name, "check")) => check(&rest, name.to_owned(), &headers, body).await,
        Some((name, "bench")) => bench::run(&rest, name.to_owned(), &headers, body).await,
        Some((name, "try")) => trial::run(&rest, name.to_owned(), &headers, body).await,
        _ => Err(Problem::no_route("POST", &format!("/api/v1/plugins/{segment}"))),
    }
}

async fn delete(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    remove(rest, name, None, &headers).await
}

async fn delete_version(
    State(rest): State<Rest>,
    Path((name, wanted)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let digest = resolve(&rest, &name, &wanted)?.digest().to_owned();
    remove(rest, name, Some(digest), &headers).await
}

async fn remove(rest: Rest, name: String, digest: Option<String>, headers: &HeaderMap) -> Answer {
    let guard = Guard::of(headers)?;
    let work = move || {
        let picked = |version: &Version| digest.as_deref().is_none_or(|digest| digest == version.digest());
        let check = |doomed: &[Version]| {
            // The tag of a plugin is its newest version's.
            guard.check(&name, doomed.last().map(tag).as_deref())?;
            let users = users_of(&rest, doomed);
            if users.named().is_empty() { Ok(()) } else { Err(in_use(&name, &users)) }
        };
        Ok(rest.parts.plugins.delete(&name, picked, check))
    };
    blocking(work).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn tag(version: &Version) -> String {
    format!("sha256:{}", version.digest())
}

fn users_of(rest: &Rest, versions: &[Version]) -> Users {
    let mut users = Users::default();
    for version in versions {
        users.pipelines.extend(rest.parts.pipelines.users_of(version));
        users.producer_groups.extend(rest.parts.checkers.users_of(version));
        users.ingress.extend(rest.parts.ingresses.users_of(version));
        users.filters.extend(rest.parts.filters.users_of(version));
    }
    for names in [&mut users.pipelines, &mut users.producer_groups, &mut users.ingress, &mut users.filters] {
        names.sort_unstable();
        names.dedup();
    }
    users
}

impl Users {
    /// As a sentence names them.
    fn named(&self) -> Vec<String> {
        let pipelines = self.pipelines.iter().map(|name| format!("pipeline {name}"));
        let checkers = self.producer_groups.iter().map(|name| format!("the checker of producer group {name}"));
        let ingress = self.ingress.iter().map(|name| format!("the ingress of topic {name}"));
        let filters = self.filters.iter().map(|name| format!("the filter {name}"));
        pipelines.chain(checkers).chain(ingress).chain(filters).collect()
    }
}

fn in_use(name: &str, users: &Users) -> Problem {
    let text = format!("plugin \"{name}\" is in use by {}", users.named().join(", "));
    Problem::from(Failure::new(Kind::Conflict, text))
        .with("used_by", serde_json::to_value(users).unwrap_or_default())
        .hint("Delete those first, or point them to another version")
}

fn plugin_view(rest: &Rest, name: &str) -> Result<PluginView> {
    let versions = rest.parts.plugins.versions(name);
    let newest = versions.last().ok_or_else(|| Failure::not_found("plugin", name))?;
    let listed = versions.iter().rev().map(|version| VersionView {
        version: version.version().to_owned(),
        digest: format!("sha256:{}", version.digest()),
        size: version.report.size,
    });
    Ok(PluginView {
        report: report_view(name, &newest.report),
        versions: listed.collect(),
        used_by: users_of(rest, &versions),
    })
}

fn report_view(name: &str, report: &Report) -> ReportView {
    ReportView {
        name: name.to_owned(),
        version: report.manifest.version.clone(),
        digest: format!("sha256:{}", report.digest),
        roles: report.roles.iter().map(|role| role.as_str()).collect(),
        imports: report.imports.iter().map(|name| ImportView::of(name)).collect(),
        size: report.size,
        compile_ms: report.compile_ms,
        manifest: manifest_view(&report.manifest),
    }
}

fn manifest_view(manifest: &Manifest) -> ManifestView {
    let columns = [
        (Columns::KEY, "key"),
        (Columns::VALUE, "value"),
        (Columns::HEADERS, "headers"),
        (Columns::TAG, "tag"),
        (Columns::BORN_AT, "born-at"),
        (Columns::STORED_AT, "stored-at"),
        (Columns::OFFSET, "offset"),
        (Columns::ATTEMPT, "attempt"),
    ];
    let port = |port: &sluice_runtime::Port| OutputView { name: port.name.clone(), description: port.doc.clone() };
    let param = |param: &sluice_runtime::Param| ParamView {
        name: param.name.clone(),
        required: param.required,
        schema: param.schema.clone(),
    };
    ManifestView {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        description: manifest.doc.clone(),
        needs: columns.iter().filter(|(flag, _)| manifest.needs.contains(*flag)).map(|(_, name)| *name).collect(),
        outputs: match &manifest.outputs {
            Outputs::Ports(ports) => Some(ports.iter().map(port).collect()),
            Outputs::OnePerSink => None,
        },
        params: manifest.params.iter().map(param).collect(),
    }
}
