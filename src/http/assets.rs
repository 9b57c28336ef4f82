//! The demo app's files, embedded at compile time (a debug build reads them from the disk).
//!
//! A plain `cargo build` works without npm: the page then says how to build the app.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::Refusal;

/// What Vite built.
#[derive(RustEmbed)]
#[folder = "client/app/dist"]
#[allow_missing = true]
struct App;

/// The page that every HTML address gets; the app reads the document's name from the address.
const INDEX: &str = "index.html";

/// Where Vite puts files whose name carries a hash of their content.
const HASHED_PREFIX: &str = "assets/";

/// A year: such a name never means other bytes.
const CACHE_HASHED: &str = "public, max-age=31536000, immutable";

/// Ask each time; the ETag makes the answer short.
const CACHE_OTHER: &str = "no-cache";

/// Shown in place of the app when it was not built.
const NOT_BUILT: &str = include_str!("not_built.html");

/// The file at a path (without its leading `/`), the app's page for addresses that a person opens, or 404.
pub(super) fn serve(path: &str, headers: &HeaderMap) -> Response {
    respond(App::get(path), path, headers, || App::get(INDEX))
}

fn respond(
    file: Option<EmbeddedFile>,
    path: &str,
    headers: &HeaderMap,
    index: impl FnOnce() -> Option<EmbeddedFile>,
) -> Response {
    if let Some(file) = file.filter(|_| !path.is_empty()) {
        return file_response(file, path, headers);
    }
    // A missing script must not be answered with a page, or the browser reports a syntax error instead of a 404. The root
    // is the page, whatever a program says that it accepts.
    let is_page = path.is_empty() || (wants_html(headers) && !path.starts_with(HASHED_PREFIX));
    if !is_page {
        return Refusal::NotFound.into_response();
    }
    match index() {
        Some(file) => file_response(file, INDEX, headers),
        None => not_built(),
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

fn file_response(file: EmbeddedFile, path: &str, headers: &HeaderMap) -> Response {
    let etag = etag(&file.metadata.sha256_hash());
    let cache = if path.starts_with(HASHED_PREFIX) {
        CACHE_HASHED
    } else {
        CACHE_OTHER
    };
    let same = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*");
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(file.data.into_owned()))
    };
    let out = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type(file.metadata.mimetype())),
        (header::ETAG, etag),
        (header::CACHE_CONTROL, cache.to_owned()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.insert(name, value);
        }
    }
    response
}

fn etag(hash: &[u8; 32]) -> String {
    // 128 bits: enough to tell versions of one file apart.
    let hex: String = hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{hex}\"")
}

fn content_type(mime: &str) -> String {
    if mime.starts_with("text/") || mime == "application/javascript" || mime == "application/json" {
        format!("{mime}; charset=utf-8")
    } else {
        mime.to_owned()
    }
}

fn not_built() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, NOT_BUILT).into_response()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use axum::body::to_bytes;
    use rust_embed::Metadata;

    use super::*;

    fn file(text: &'static str, mime: &'static str) -> Option<EmbeddedFile> {
        Some(EmbeddedFile {
            data: Cow::Borrowed(text.as_bytes()),
            metadata: Metadata::__rust_embed_new([7; 32], None, None, mime),
        })
    }

    fn accepting(accept: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers
    }

    async fn text(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

    #[tokio::test]
    async fn a_hashed_file_is_immutable_and_a_known_one_is_not_sent_again() {
        let path = "assets/index-B4x.js";
        let script = || file("let a", "text/javascript");
        let response = respond(script(), path, &HeaderMap::new(), || None);
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        assert_eq!(headers[header::CACHE_CONTROL], CACHE_HASHED);
        assert_eq!(
            headers[header::CONTENT_TYPE],
            "text/javascript; charset=utf-8"
        );
        assert_eq!(text(response).await, "let a");

        let mut again = HeaderMap::new();
        let tags = format!("\"x\", W/{}", headers[header::ETAG].to_str().unwrap());
        again.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&tags).unwrap());
        let response = respond(script(), path, &again, || None);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[header::ETAG], headers[header::ETAG]);
        assert_eq!(text(response).await, "");
    }

    #[tokio::test]
    async fn a_person_gets_the_page_and_a_program_a_404() {
        let page = || file("<p>app", "text/html");
        let response = respond(None, "notes/today", &accepting(BROWSER), page);
        assert_eq!(response.headers()[header::CACHE_CONTROL], CACHE_OTHER);
        assert_eq!(text(response).await, "<p>app");
        for (path, accept) in [("notes/today", "*/*"), ("assets/gone.js", BROWSER)] {
            let response = respond(None, path, &accepting(accept), page);
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn without_the_app_the_page_says_how_to_build_it() {
        let response = respond(None, "", &accepting(BROWSER), || None);
        assert_eq!(response.status(), StatusCode::OK);
        let page = text(response).await;
        assert!(
            page.contains("make run") && page.contains("npm ci"),
            "{page}"
        );
        // The content security policy allows no script and nothing from elsewhere.
        assert!(
            !page.contains("<script") && !page.contains("http"),
            "{page}"
        );
    }

    #[test]
    fn no_path_leaves_the_folder() {
        for path in [
            "../../../Cargo.toml",
            "/etc/passwd",
            "..%2f..%2f..%2fCargo.toml",
        ] {
            assert!(App::get(path).is_none(), "{path}");
        }
    }
}
