//! The document: read, followed by its references, and asked whether an answer is one that it describes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use boon::{Compiler, Schemas};
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::Reply;

const YAML: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
const OFFICIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openapi/oas-3.1.json");
const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];
/// Headers that answers may have without a word: those of HTTP itself and of CORS.
const USUAL: [&str; 8] = [
    "allow",
    "connection",
    "content-length",
    "transfer-encoding",
    "content-type",
    "date",
    "keep-alive",
    "vary",
];

/// YAML as JSON.
pub(crate) fn json_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(flag) => (*flag).into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Real(_) => yaml.as_f64().unwrap().into(),
        Yaml::String(text) => text.as_str().into(),
        Yaml::Array(items) => items.iter().map(json_of).collect(),
        Yaml::Hash(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                // `200:` and `on:` would be names by mistake.
                let name = name
                    .as_str()
                    .unwrap_or_else(|| panic!("{name:?} is no name"));
                (name.to_owned(), json_of(value))
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Yaml::Alias(_) | Yaml::BadValue => panic!("{yaml:?}"),
    }
}

/// The one document of a text.
pub(crate) fn read_yaml(text: &str) -> Value {
    let documents = YamlLoader::load_from_str(text).unwrap();
    assert_eq!(documents.len(), 1);
    json_of(&documents[0])
}

/// As the file beside the document has it.
pub(crate) fn written_json(document: &Document) -> String {
    format!("{}\n", document.json)
}

/// The document, with the schemas that were used so far.
pub(crate) struct Document {
    json: Value,
    schemas: RefCell<(Compiler, Schemas)>,
}

/// One method of one path.
pub(crate) struct Operation {
    pub id: String,
    pub path: String,
    pub method: String,
    /// What it is called in the program's metrics.
    pub endpoint: Option<String>,
    /// Whether it is on the admin address.
    pub admin: bool,
    /// Where it stands in the document.
    place: String,
    pub operation: Value,
    /// Its parameters and those of its path.
    pub parameters: Vec<Value>,
    /// Content type, and its example values by name.
    pub bodies: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Operation {
    /// The names of its examples, in the order in which they are run; none: it takes nothing that examples could show.
    pub(crate) fn example_names(&self) -> Vec<Option<String>> {
        let mut names: Vec<String> = Vec::new();
        let of_bodies = self.bodies.values().flat_map(BTreeMap::keys).cloned();
        let of_parameters = self.parameters.iter().flat_map(|parameter| {
            let examples = parameter["examples"].as_object();
            examples.into_iter().flat_map(Map::keys).cloned()
        });
        for name in of_bodies.chain(of_parameters) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            let responses = self.operation["responses"].as_object();
            let contents = responses.into_iter().flat_map(Map::values);
            let contents = contents.filter_map(|response| response["content"].as_object());
            let examples = contents
                .flat_map(Map::values)
                .filter_map(|content| content["examples"].as_object());
            names.extend(examples.flat_map(Map::keys).cloned());
        }
        match names.is_empty() {
            true => vec![None],
            false => names.into_iter().map(Some).collect(),
        }
    }

    /// Status and body of the answer that the example of that name has.
    pub(crate) fn answer_example<'a>(
        &self,
        document: &'a Document,
        name: &str,
    ) -> Option<(u16, &'a Value)> {
        let responses = document.at(&format!("{}/responses", self.place));
        responses.as_object()?.keys().find_map(|status| {
            let place = document.followed(format!("{}/responses/{status}/content", self.place));
            let contents = document.json.pointer(&place)?.as_object()?;
            let example = contents
                .values()
                .find_map(|content| content["examples"].get(name))?;
            Some((status.parse().ok()?, example.get("value")?))
        })
    }

    /// The statuses that it says.
    pub(crate) fn statuses(&self) -> BTreeSet<u16> {
        let responses = self.operation["responses"].as_object().unwrap();
        responses
            .keys()
            .map(|status| status.parse().unwrap())
            .collect()
    }

    /// Whether it takes a body.
    pub(crate) fn takes_a_body(&self) -> bool {
        !self.bodies.is_empty()
    }

    /// Whose words its answers are in.
    pub(crate) fn tag(&self) -> &str {
        self.operation["tags"][0].as_str().unwrap()
    }
}

impl Document {
    pub(crate) fn read() -> Self {
        Self::of(read_yaml(&std::fs::read_to_string(YAML).unwrap()))
    }

    fn of(json: Value) -> Self {
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler
            .add_resource("http://document/", json.clone())
            .unwrap();
        Self {
            json,
            schemas: RefCell::new((compiler, Schemas::new())),
        }
    }

    /// What stands there, references not followed.
    pub(crate) fn at(&self, place: &str) -> &Value {
        self.json
            .pointer(place)
            .unwrap_or_else(|| panic!("nothing at {place}"))
    }

    /// Another value there.
    pub(crate) fn put(&mut self, place: &str, value: Value) {
        let mut json = self.json.clone();
        let (before, name) = place.rsplit_once('/').unwrap();
        json.pointer_mut(before).unwrap()[name] = value;
        *self = Self::of(json);
    }

    /// The same place by way of the references on its way.
    fn followed(&self, place: String) -> String {
        let mut found = String::new();
        for step in place.split('/').skip(1) {
            found = format!("{found}/{step}");
            while let Some(next) = self
                .json
                .pointer(&found)
                .and_then(|value| value["$ref"].as_str())
            {
                found = next.strip_prefix('#').unwrap().to_owned();
            }
        }
        found
    }

    fn value(&self, place: &str) -> &Value {
        self.at(&self.followed(place.to_owned()))
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (path, item) in self.at("/paths").as_object().unwrap() {
            let path_place = format!("/paths/{}", escaped(path));
            for method in METHODS {
                let Some(operation) = item.get(method) else {
                    continue;
                };
                let place = format!("{path_place}/{method}");
                let mut parameters = Vec::new();
                for place in [&path_place, &place] {
                    let list = format!("{place}/parameters");
                    let given = self.json.pointer(&list).and_then(Value::as_array);
                    for index in 0..given.map_or(0, Vec::len) {
                        parameters.push(self.value(&format!("{list}/{index}")).clone());
                    }
                }
                let mut bodies = BTreeMap::new();
                if operation.get("requestBody").is_some() {
                    let contents = self.value(&format!("{place}/requestBody"))["content"].clone();
                    for (content_type, content) in contents.as_object().unwrap() {
                        let examples = content["examples"].as_object().unwrap();
                        let examples = examples
                            .iter()
                            .map(|(name, example)| (name.clone(), example["value"].clone()));
                        bodies.insert(content_type.clone(), examples.collect());
                    }
                }
                let text = |name: &str| operation[name].as_str().map(str::to_owned);
                operations.push(Operation {
                    id: text("operationId").unwrap(),
                    path: path.clone(),
                    method: method.to_owned(),
                    endpoint: text("x-unread-endpoint"),
                    admin: item.get("servers").is_some(),
                    place,
                    operation: operation.clone(),
                    parameters,
                    bodies,
                });
            }
        }
        let ids: BTreeSet<&str> = operations.iter().map(|o| o.id.as_str()).collect();
        assert_eq!(ids.len(), operations.len(), "an operationId is there twice");
        operations
    }

    // ------------------------------------------------------------------------------------- the document by itself

    pub(crate) fn fits_the_official_schema(&self) -> Result<(), String> {
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        let official = std::fs::read(OFFICIAL).unwrap();
        let official: Value = serde_json::from_slice(&official).unwrap();
        compiler.add_resource("http://official/", official).unwrap();
        let schema = compiler.compile("http://official/", &mut schemas).unwrap();
        schemas
            .validate(&self.json, schema)
            .map_err(|error| format!("{error:#}"))
    }

    pub(crate) fn references_can_be_followed(&self) -> Result<(), String> {
        for place in references(&self.json) {
            let pointer = place.strip_prefix('#').ok_or(place)?;
            self.json.pointer(pointer).ok_or(place)?;
        }
        Ok(())
    }

    pub(crate) fn components_are_used(&self) -> Result<(), String> {
        let used: BTreeSet<&str> = references(&self.json).into_iter().collect();
        for (kind, components) in self.at("/components").as_object().unwrap() {
            for name in components.as_object().unwrap().keys() {
                let place = format!("#/components/{kind}/{name}");
                let is_used = match kind.as_str() {
                    "securitySchemes" => {
                        let mut operations = self.operations().into_iter();
                        operations.any(|one| one.operation["security"][0].get(name).is_some())
                    }
                    _ => used.contains(place.as_str()),
                };
                if !is_used {
                    return Err(format!("{place} is used nowhere"));
                }
            }
        }
        Ok(())
    }

    /// All of them are schemas, and the examples of bodies and parameters are what theirs describe.
    pub(crate) fn schemas_can_be_used(&self) -> Result<(), String> {
        for name in self.at("/components/schemas").as_object().unwrap().keys() {
            self.compile(&format!("/components/schemas/{name}"))?;
        }
        for operation in self.operations() {
            let place = format!("{}/requestBody", operation.place);
            for (content_type, examples) in &operation.bodies {
                let schema = format!("{place}/content/{}/schema", escaped(content_type));
                for (name, example) in examples {
                    // What it shows is an error.
                    let is_error = operation
                        .answer_example(self, name)
                        .is_some_and(|(status, _)| status >= 400);
                    if self.fits(&schema, example).is_err() != is_error {
                        self.fits(&schema, example)
                            .map_err(|why| format!("{}: {name}: {why}", operation.id))?;
                        return Err(format!("{}: {name} is no error", operation.id));
                    }
                }
            }
            for status in operation.statuses() {
                let response = format!("{}/responses/{status}", operation.place);
                // An answer without a body.
                if self.value(&response).get("content").is_none() {
                    continue;
                }
                let place = format!("{response}/content");
                let contents = self.value(&place).as_object().unwrap();
                for (content_type, content) in contents {
                    let schema = format!("{place}/{}/schema", escaped(content_type));
                    self.compile(&self.followed(schema.clone()))?;
                    let examples = content["examples"].as_object().into_iter().flatten();
                    let examples = examples.map(|(_, example)| &example["value"]);
                    for example in examples.chain(content.get("example")) {
                        self.fits(&schema, example)
                            .map_err(|why| format!("{}: {status}: {why}", operation.id))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn compile(&self, place: &str) -> Result<boon::SchemaIndex, String> {
        let (compiler, schemas) = &mut *self.schemas.borrow_mut();
        compiler
            .compile(&format!("http://document/#{place}"), schemas)
            .map_err(|error| format!("{place}: {error:#}"))
    }

    /// Whether the value is what the schema there describes.
    fn fits(&self, place: &str, value: &Value) -> Result<(), String> {
        let schema = self.compile(&self.followed(place.to_owned()))?;
        let schemas = self.schemas.borrow();
        schemas
            .1
            .validate(value, schema)
            .map_err(|error| format!("{error:#}"))
    }

    // ------------------------------------------------------------------------------------- answers

    /// Whether an answer is one that the operation has: its status, its type, its body, its headers. Answers its status.
    pub(crate) fn check(&self, operation: &Operation, reply: &Reply) -> Result<u16, String> {
        let place = self.followed(format!("{}/responses/{}", operation.place, reply.status));
        let response = self
            .json
            .pointer(&place)
            .ok_or_else(|| format!("status {} is not in the document", reply.status))?;
        match reply.header("content-type") {
            None if response.get("content").is_none() => {
                if !reply.text.is_empty() {
                    return Err("the answer has a body".to_owned());
                }
            }
            content_type => {
                let content_type = content_type.unwrap_or_default();
                let content_type = content_type.split(';').next().unwrap_or_default();
                if response["content"].get(content_type).is_none() {
                    return Err(format!("{content_type:?} is not in the document"));
                }
                let body = match content_type.ends_with("json") {
                    true => reply.body.clone(),
                    false => reply.text.as_str().into(),
                };
                self.fits(
                    &format!("{place}/content/{}/schema", escaped(content_type)),
                    &body,
                )?;
            }
        }
        let headers = response["headers"].as_object().cloned().unwrap_or_default();
        for name in headers.keys() {
            let header = format!("{place}/headers/{name}");
            let Some(value) = reply.header(&name.to_ascii_lowercase()) else {
                if self.value(&header)["required"] == true {
                    return Err(format!("the header {name} is missing"));
                }
                continue;
            };
            let number = self.value(&header)["schema"]["type"] == "integer";
            let value = match value.parse::<u64>() {
                Ok(value) if number => value.into(),
                _ => Value::from(value),
            };
            self.fits(&format!("{header}/schema"), &value)
                .map_err(|why| format!("{name}: {why}"))?;
        }
        for name in reply.headers.keys() {
            let described = headers.keys().any(|known| known.eq_ignore_ascii_case(name));
            let is_usual = USUAL.contains(&name.as_str()) || name.starts_with("access-control-");
            if !described && !is_usual {
                return Err(format!("the header {name} is not in the document"));
            }
        }
        Ok(reply.status)
    }
}

/// A step of a JSON pointer.
fn escaped(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// All references.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str);
            let mapped = fields.get("mapping").and_then(Value::as_object);
            let mapped = mapped
                .into_iter()
                .flatten()
                .filter_map(|(_, to)| to.as_str());
            let inner = fields.values().flat_map(references);
            own.into_iter().chain(mapped).chain(inner).collect()
        }
        _ => Vec::new(),
    }
}
