//! What every request passes on its way in and out: `Host` and `Origin`, CORS, and the headers that keep pages safe.

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::Refusal;
use super::state::State;
use crate::auth::host::{self, HostError};

/// The path that answers under any `Host`: probes of supervisors and containers use addresses, and it tells nothing.
const HEALTH_PATH: &str = "/healthz";

/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_MAX_AGE_S: &str = "600";

/// Counts answers by class of status.
pub(super) async fn count(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let class = match response.status().as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    state.metrics.http_requests.inc([class]);
    response
}

/// Refuses requests under foreign names, before anything else looks at them.
pub(super) async fn check_host(
    Shared(state): Shared<State>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path() != HEALTH_PATH
        && let Err(error) = check(request.uri(), request.headers())
    {
        let refusal = Refusal::Host(error);
        state.metrics.handshakes_refused.inc([refusal.reason()]);
        tracing::debug!(%error, "refused a request");
        return refusal.into_response();
    }
    next.run(request).await
}

/// `Host` must be there once. The authority of an absolute request target counts too, since it would take precedence.
fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), HostError> {
    let host = single(headers, &header::HOST).ok_or(HostError::MissingHost)?;
    if let Some(authority) = uri.authority() {
        host::check(Some(authority.as_str()), None)?;
    }
    if headers.contains_key(header::ORIGIN) {
        let origin = single(headers, &header::ORIGIN).ok_or(HostError::ForeignOrigin)?;
        host::check(Some(host), Some(origin))
    } else {
        host::check(Some(host), None)
    }
}

/// The value of a header that is there exactly once and is visible ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (_, _) => None,
    }
}

/// Lets pages of other loopback origins (a development server on another port) read the API and the probes.
pub(super) async fn cors(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let shared = path.starts_with("/v1/") || path == HEALTH_PATH || path == "/readyz";
    let origin = single(request.headers(), &header::ORIGIN)
        .filter(|origin| shared && host::is_loopback_origin(origin))
        .and_then(|origin| HeaderValue::from_str(origin).ok());
    let Some(origin) = origin else {
        let mut response = next.run(request).await;
        if shared {
            vary_by_origin(&mut response);
        }
        return response;
    };
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_S),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    } else {
        next.run(request).await
    };
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    vary_by_origin(&mut response);
    response
}

fn vary_by_origin(response: &mut Response) {
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("origin"));
}

/// What the demo needs and no more. Styles inline: the editor sets colours of cursors as style attributes. `connect-src`
/// names the WebTransport listener, which is another origin.
fn content_security_policy(webtransport_origin: Option<&str>) -> String {
    format!(
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
         font-src 'self' data:; connect-src 'self' ws: wss: https://127.0.0.1:* https://localhost:*{}{}; \
         object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        if webtransport_origin.is_some() {
            " "
        } else {
            ""
        },
        webtransport_origin.unwrap_or_default(),
    )
}

/// `https://host:port` of a URL that we made ourselves; `None` when it could end the directive early.
fn origin_of(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split('/').next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    // An IPv6 literal is no valid source in a policy; browsers would ignore it with a warning.
    (!authority.is_empty() && authority.chars().all(plain)).then(|| format!("https://{authority}"))
}

/// Puts the headers on every answer.
pub(super) async fn secure(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let info = state.connect.get();
    let webtransport = info
        .webtransport
        .as_ref()
        .and_then(|listener| origin_of(&listener.url));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Document names are in the address.
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&content_security_policy(webtransport.as_deref())) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn host_and_origin_are_taken_from_every_place_they_may_stand() {
        let local = Uri::from_static("/v1/connect");
        let table = [
            (&local, headers(&[("host", "localhost:1")]), Ok(())),
            (&local, headers(&[]), Err(HostError::MissingHost)),
            (
                &local,
                headers(&[("host", "localhost"), ("host", "localhost")]),
                Err(HostError::MissingHost),
            ),
            (
                &local,
                headers(&[("host", "localhost.evil.com")]),
                Err(HostError::ForeignHost),
            ),
            (
                &local,
                headers(&[("host", "localhost"), ("origin", "null")]),
                Err(HostError::ForeignOrigin),
            ),
            (
                &local,
                headers(&[
                    ("host", "localhost"),
                    ("origin", "http://localhost"),
                    ("origin", "http://evil.com"),
                ]),
                Err(HostError::ForeignOrigin),
            ),
        ];
        for (uri, headers, expected) in table {
            assert_eq!(check(uri, &headers), expected, "{headers:?}");
        }
        let absolute = Uri::from_static("http://evil.com/v1/connect");
        assert_eq!(
            check(&absolute, &headers(&[("host", "localhost")])),
            Err(HostError::ForeignHost)
        );
    }

    #[test]
    fn the_policy_names_the_webtransport_listener() {
        let origin = origin_of("https://sync.example.com:4433/");
        assert_eq!(origin.as_deref(), Some("https://sync.example.com:4433"));
        let policy = content_security_policy(origin.as_deref());
        assert!(
            policy.contains("https://localhost:* https://sync.example.com:4433; "),
            "{policy}"
        );
        assert_eq!(origin_of("https://[::1]:4433/"), None);
        assert_eq!(origin_of("https://x; script-src */"), None);
        assert_eq!(origin_of("http://localhost/"), None);
    }
}
