//! Routes and their description, made together, so that the document says what is served.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Query, Request},
    handler::Handler,
    http::Method,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Rest, page::Page, problem::Problem};
use crate::failure::Failure;

/// Where the API begins.
pub const PREFIX: &str = "/api/v1";

/// Routes of the API, with the OpenAPI document about them.
pub struct Routes {
    router: Router<Rest>,
    paths: BTreeMap<String, Map<String, Value>>,
    schemas: SchemaGenerator,
}

/// The description of one operation.
pub struct Operation<'a> {
    schemas: &'a mut SchemaGenerator,
    object: Map<String, Value>,
    parameters: Vec<Value>,
    responses: Map<String, Value>,
}

impl Routes {
    pub fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self { router: Router::new(), paths: BTreeMap::new(), schemas: settings.into_generator() }
    }

    /// Serves `method` at `path` (below the prefix) with `handler`. Where no parameters of the query are described, none are taken.
    pub fn serve<H: Handler<T, Rest>, T: 'static>(
        self,
        method: Method,
        path: &str,
        summary: &str,
        describe: impl FnOnce(Operation<'_>) -> Operation<'_>,
        handler: H,
    ) -> Self {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        let mut routes = self.describe(method.clone(), path, summary, describe);
        let handler = on(filter, handler);
        let handler = if routes.takes_query(&method, path) { handler } else { without_query(handler) };
        routes.router = routes.router.route(&format!("{PREFIX}{path}"), handler);
        routes
    }

    fn takes_query(&self, method: &Method, path: &str) -> bool {
        let operation = self.paths.get(path).and_then(|methods| methods.get(&method.as_str().to_lowercase()));
        let parameters = operation.and_then(|operation| operation.get("parameters")?.as_array());
        parameters.into_iter().flatten().any(|parameter| parameter["in"] == "query")
    }

    /// Describes what is served by the handler of another path: verbs behind a colon cannot be told from names by the
    /// router.
    pub fn describe(
        mut self,
        method: Method,
        path: &str,
        summary: &str,
        describe: impl FnOnce(Operation<'_>) -> Operation<'_>,
    ) -> Self {
        let mut operation = Operation {
            schemas: &mut self.schemas,
            object: Map::new(),
            parameters: path_parameters(path),
            responses: Map::new(),
        };
        operation.object.insert("summary".to_owned(), summary.into());
        let operation = describe(operation).finish();
        self.paths.entry(path.to_owned()).or_default().insert(method.as_str().to_lowercase(), Value::Object(operation));
        self
    }

    /// Serves a path that stands in the document already. None of its verbs takes a query.
    pub fn verbs<H: Handler<T, Rest>, T: 'static>(mut self, path: &str, handler: H) -> Self {
        let handler = without_query(on(MethodFilter::POST, handler));
        self.router = self.router.route(&format!("{PREFIX}{path}"), handler);
        self
    }

    /// The router and the document.
    pub fn finish(mut self) -> (Router<Rest>, Value) {
        self.schemas.subschema_for::<Problem>();
        let schemas = self.schemas.take_definitions(true);
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Sluice",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Topics, messages, groups, plugins and pipelines of a Sluice broker.",
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": PREFIX }],
            "paths": self.paths,
            "components": { "schemas": schemas },
        });
        (self.router, document)
    }
}

impl Operation<'_> {
    /// Takes the fields of `T` as parameters of the query.
    pub fn query<T: JsonSchema>(mut self) -> Self {
        let schema = self.schemas.root_schema_for::<T>();
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for (name, schema) in properties {
            let needed = required.iter().any(|field| field == &name);
            self.parameters.push(json!({ "name": name, "in": "query", "required": needed, "schema": schema }));
        }
        self
    }

    /// A header that may come with the request.
    pub fn header(mut self, name: &str, about: &str) -> Self {
        let schema = json!({ "type": "string" });
        self.parameters.push(json!({ "name": name, "in": "header", "description": about, "schema": schema }));
        self
    }

    /// `If-Match` and `If-None-Match`.
    pub fn guarded(self) -> Self {
        self.header("If-Match", "Change it only if this is its ETag; 412 otherwise.")
            .header("If-None-Match", "`*`: create it only if it does not exist; 412 otherwise.")
    }

    /// Takes JSON.
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        let schema = self.schemas.subschema_for::<T>();
        self.body("application/json", schema.to_value());
        self
    }

    /// Takes bytes of a media type.
    pub fn takes_bytes(mut self, media: &str) -> Self {
        self.body(media, json!({}));
        self
    }

    fn body(&mut self, media: &str, schema: Value) {
        let body = self.object.entry("requestBody").or_insert_with(|| json!({ "content": {} }));
        body["content"][media] = json!({ "schema": schema });
    }

    /// Answers with JSON.
    pub fn answers<T: JsonSchema>(mut self, status: u16, about: &str) -> Self {
        let schema: Schema = self.schemas.subschema_for::<T>();
        let content = json!({ "application/json": { "schema": schema } });
        self.responses.insert(status.to_string(), json!({ "description": about, "content": content }));
        self
    }

    /// Answers with JSON of one of two forms.
    pub fn answers_either<A: JsonSchema, B: JsonSchema>(mut self, status: u16, about: &str) -> Self {
        let forms = [self.schemas.subschema_for::<A>(), self.schemas.subschema_for::<B>()];
        let content = json!({ "application/json": { "schema": { "anyOf": forms } } });
        self.responses.insert(status.to_string(), json!({ "description": about, "content": content }));
        self
    }

    /// Answers with a page of a list.
    pub fn lists<T: JsonSchema>(self, about: &str) -> Self {
        self.answers::<Page<T>>(200, about)
    }

    /// Answers with server-sent events, each of which holds `T`.
    pub fn streams<T: JsonSchema>(mut self, about: &str) -> Self {
        let schema = self.schemas.subschema_for::<T>();
        let answer = self.responses.entry("200").or_insert_with(|| json!({ "description": about, "content": {} }));
        answer["content"]["text/event-stream"] = json!({ "itemSchema": schema });
        self
    }

    /// Answers with nothing but success.
    pub fn empties(mut self, about: &str) -> Self {
        self.responses.insert("204".to_owned(), json!({ "description": about }));
        self
    }

    fn finish(self) -> Map<String, Value> {
        let Self { mut object, parameters, mut responses, .. } = self;
        let problem = json!({ "$ref": "#/components/schemas/Problem" });
        let content = json!({ "application/problem+json": { "schema": problem } });
        responses.insert("default".to_owned(), json!({ "description": "Why it failed.", "content": content }));
        if !parameters.is_empty() {
            object.insert("parameters".to_owned(), parameters.into());
        }
        object.insert("responses".to_owned(), responses.into());
        object
    }
}

fn without_query(handler: MethodRouter<Rest>) -> MethodRouter<Rest> {
    handler.route_layer(middleware::from_fn(no_query))
}

/// What is not read is refused, not passed over: a misspelt parameter would be, and so would one that guards a change.
async fn no_query(request: Request, next: Next) -> Response {
    let parameters = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let first = match parameters {
        Ok(Query(parameters)) => parameters.into_iter().next().map(|(name, _)| name),
        Err(_) => Some("query".to_owned()),
    };
    match first {
        None => next.run(request).await,
        Some(name) => {
            let text = format!("{name}: {} {} takes no parameters", request.method(), request.uri().path());
            Problem::from(Failure::invalid(&name, text)).into_response()
        }
    }
}

/// The parameters between braces.
fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })).collect()
}
