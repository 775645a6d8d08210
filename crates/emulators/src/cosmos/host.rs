//! The emulator behind a port, so that a program that knows nothing of it can be run against it.
//!
//! Speaks HTTP/1.1, and HTTP/2 to clients that begin with it, which the SDK does. Only ever bound to the loopback
//! interface by whoever gives it its listener.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use azure_core::http::Request;
use azure_core::http::headers::{HeaderName, HeaderValue};
use futures_util::StreamExt;
use tokio::net::TcpListener;

use super::{Account, Emulator};

/// The longest request that is taken: the service's own limit is 2 MB for a batch, and it is the emulator that says so.
const BODY_BYTES_MAX: usize = 8 << 20;

/// An emulator that answers at a listener, once [`Host::serve`] runs.
#[derive(Debug)]
pub struct Host {
    /// The account behind it.
    pub emulator: Emulator,
    /// Its URL, with a `/` at the end.
    pub url: String,
    listener: TcpListener,
}

impl Host {
    /// Binds a port of the loopback interface; 0 takes a free one.
    ///
    /// # Errors
    /// If it is taken.
    pub async fn bind(port: u16, account: Account) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let url = format!("http://127.0.0.1:{}/", listener.local_addr()?.port());
        Ok(Self { emulator: Emulator::hosted(&url, account), url, listener })
    }

    /// Answers requests until the task is dropped.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(self) -> std::io::Result<()> {
        let app = Router::new().fallback(forward).layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
        axum::serve(self.listener, app.with_state(self.emulator)).await
    }
}

async fn forward(
    State(emulator): State<Emulator>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let refuse = |status: StatusCode, why: String| {
        let mut response = Response::new(Body::from(why));
        *response.status_mut() = status;
        response
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(url) = emulator.endpoint().join(path) else {
        return refuse(StatusCode::BAD_REQUEST, format!("'{path}' is not a path"));
    };
    let method = match method {
        Method::GET => azure_core::http::Method::Get,
        Method::POST => azure_core::http::Method::Post,
        Method::PUT => azure_core::http::Method::Put,
        Method::DELETE => azure_core::http::Method::Delete,
        Method::PATCH => azure_core::http::Method::Patch,
        Method::HEAD => azure_core::http::Method::Head,
        other => {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{other} is not a method of the service"));
        }
    };
    let mut request = Request::new(url, method);
    for (name, value) in &headers {
        if let Ok(value) = value.to_str() {
            request.insert_header(
                HeaderName::from(name.as_str().to_owned()),
                HeaderValue::from(value.to_owned()),
            );
        }
    }
    request.set_body(azure_core::http::Body::from(body.to_vec()));
    let answer = match emulator.answer(&request).await {
        Ok(answer) => answer,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let (status, headers, mut chunks) = answer.deconstruct();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
    let mut response = Response::builder().status(u16::from(status));
    for (name, value) in headers.iter() {
        response = response.header(name.as_str(), value.as_str());
    }
    match response.body(Body::from(bytes)) {
        Ok(response) => response,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
