//! The routes.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::Refusal;
use super::state::{Route, State, Upgrade};
use super::{assets, guard};

/// What `/yjs/…` starts with.
const YJS_PREFIX: &str = "/yjs/";

/// The other end of the connection that a request came by. The accept loop puts it on every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// All routes over the shared state.
pub(super) fn router(state: State) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/connect", get(connect))
        .route("/v1/{*rest}", get(|| async { Refusal::NotFound }))
        .route("/ws", get(websocket))
        .route(YJS_PREFIX, get(yjs))
        .route("/yjs/{*document}", get(yjs))
        .fallback(fallback)
        .method_not_allowed_fallback(|| async { Refusal::MethodNotAllowed })
        // The last layer is the first to see a request.
        .layer(middleware::from_fn(guard::cors))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            guard::check_host,
        ))
        .layer(middleware::from_fn_with_state(state.clone(), guard::secure))
        .layer(middleware::from_fn_with_state(state.clone(), guard::count))
        .with_state(state)
}

/// Ready, or why not, one reason a line.
async fn readyz(Shared(state): Shared<State>) -> (StatusCode, String) {
    let reasons = state.readiness.reasons();
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let lines = reasons
        .iter()
        .map(|(name, text)| format!("{name}: {text}\n"));
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn metrics(Shared(state): Shared<State>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, OPEN_METRICS)],
        state.metrics.render(),
    )
}

/// Where to connect. Not cached: the certificate's hash changes when it is renewed.
async fn connect(Shared(state): Shared<State>) -> impl IntoResponse {
    let info = state.connect.get();
    (
        [(header::CACHE_CONTROL, "no-store")],
        axum::Json((*info).clone()),
    )
}

async fn websocket(
    Shared(state): Shared<State>,
    Extension(peer): Extension<PeerAddress>,
    request: Request,
) -> Response {
    upgrade(&state, peer, request, Route::Native)
}

async fn yjs(
    Shared(state): Shared<State>,
    Extension(peer): Extension<PeerAddress>,
    request: Request,
) -> Response {
    let document = yjs_document(request.uri());
    upgrade(&state, peer, request, Route::Yjs { document })
}

fn upgrade(state: &State, peer: PeerAddress, request: Request, route: Route) -> Response {
    let upgrade = Upgrade {
        request: request.map(drop),
        peer: peer.0,
        route,
    };
    match state.upgrades.upgrade(upgrade) {
        Ok(response) => response.map(|()| Body::empty()),
        Err(refused) => {
            let refusal = Refusal::Upgrade(refused);
            state.metrics.handshakes_refused.inc([refusal.reason()]);
            refusal.into_response()
        }
    }
}

/// The document's name of `/yjs/…`: the rest of the raw path, so that `/` stays, with exactly that undone which a URL
/// parser did to the name. Stock clients put the name into the path as it is, and the parser encodes what a path cannot
/// hold; what the application itself encoded (`a%2Fb`, `100%25`) is part of its name, as it is for the reference server,
/// or two documents would become one. Bytes that are not UTF-8 leave the whole name as it was written.
fn yjs_document(uri: &Uri) -> String {
    let raw = uri.path().strip_prefix(YJS_PREFIX).unwrap_or_default();
    let mut name = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match encoded_byte(rest).filter(|byte| is_encoded_by_url_parser(*byte)) {
            Some(decoded) => {
                name.push(decoded);
                rest = &rest[3..];
            }
            None => {
                name.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(name).unwrap_or_else(|_| raw.to_owned())
}

/// The byte that `%xx` at the beginning stands for.
fn encoded_byte(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = *text else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The path percent-encode set of the URL standard (<https://url.spec.whatwg.org/#path-percent-encode-set>), without `#`
/// and `?`: a parser ends the path at those, so where they are encoded it was not the parser.
fn is_encoded_by_url_parser(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'}')
}

/// The demo's files and pages.
async fn fallback(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return Refusal::MethodNotAllowed.into_response();
    }
    assets::serve(uri.path().trim_start_matches('/'), &headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_rest_of_the_path() {
        for (uri, name) in [
            ("/yjs/notes", "notes"),
            ("/yjs/a/b/c", "a/b/c"),
            ("/yjs/a%2Fb", "a%2Fb"),
            ("/yjs/a//b/", "a//b/"),
            ("/yjs/%E6%97%A5%E6%9C%AC", "日本"),
            ("/yjs/my%20notes", "my notes"),
            ("/yjs/a+b", "a+b"),
            ("/yjs/100%", "100%"),
            ("/yjs/100%zz%2", "100%zz%2"),
            ("/yjs/%25", "%25"),
            ("/yjs/100%25", "100%25"),
            ("/yjs/%7Ba%7d%3C%22%5e", "{a}<\"^"),
            ("/yjs/%23%3F", "%23%3F"),
            ("/yjs/%ff%20x", "%ff%20x"),
            ("/yjs/notes?token=a/b&x=%20", "notes"),
            ("/yjs/", ""),
        ] {
            assert_eq!(yjs_document(&uri.parse().unwrap()), name, "{uri}");
        }
    }
}
