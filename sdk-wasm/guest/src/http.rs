//! Requests to servers that were granted to the plugin. A call waits for its answer; what a call may wait in all is limited.
//!
//! A batch may be run again, after a crash or for another record of it that failed, and its requests are sent again then: let the server
//! know them by something that stays the same, such as the record's key.
//!
//! ```no_run
//! use sluice_sdk::{http, secrets};
//!
//! # fn ask() -> Result<(), String> {
//! let answer = http::get("https://api.example.com/v1/customers/ada")
//!     .header("authorization", &format!("Bearer {}", secrets::get("api-key")?))
//!     .send()?;
//! if answer.status == 200 {
//!     let customer = answer.json().map_err(|error| error.to_string())?;
//! }
//! # Ok(())
//! # }
//! ```

use crate::wit::imports::http as host;

pub use crate::wit::imports::http::Response;

/// A request that is being made.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Request(host::Request);

/// A request with this method, in capital letters.
pub fn request(method: &str, url: impl Into<String>) -> Request {
    Request(host::Request { method: method.to_owned(), url: url.into(), headers: Vec::new(), body: Vec::new() })
}

pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Request {
    request("POST", url).body(body)
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.0.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.0.body = body.into();
        self
    }

    /// Sends it and waits for the answer, of whatever status.
    ///
    /// # Errors
    /// There is no answer: the request was not granted, or the server could not be reached, took too long or answered too much. It may have
    /// acted on the request all the same.
    pub fn send(self) -> Result<Response, String> {
        host::send(&self.0)
    }
}

impl Response {
    /// The header with this name, which is in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text; bytes that are none are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}
