//! The command `serve`: the dashboard on a port of its own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postrider::dashboard::{Access, Dashboard};
use postrider::{AdminStore, Outbox};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::args::ServeArgs;
use crate::error::CliError;
use crate::output::Output;
use crate::signals::Signals;
use crate::{admin, logs};

/// The wait after a wrong password. Wrong passwords wait one after the other, so nobody can try more than five in a second.
const WRONG_PASSWORD: Duration = Duration::from_millis(200);

pub(crate) async fn run<S: AdminStore>(
    args: ServeArgs,
    store: S,
    signals: &Signals,
    out: &mut Output,
) -> Result<(), CliError> {
    let password = password(args.password_file.as_deref())?;
    if password.is_none() && !args.listen.ip().is_loopback() {
        return Err(CliError::usage(format!(
            "{} can be reached from other machines, and no password is set: set POSTRIDER_PASSWORD or use \
             --password-file, or listen on 127.0.0.1",
            args.listen
        )));
    }
    // The first query, so that missing tables are reported in one line before the logs start.
    store.next_due().await?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| CliError::runtime(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr().unwrap_or(args.listen);
    logs::start(None)?;
    let router = router(&args, password, Outbox::enqueue_only(store));
    let stop = signals.stop_on_signal();
    out.line(format_args!("the dashboard is at http://{address}/"))?;
    out.flush()?;
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    serving.await.map_err(|error| CliError::runtime(format!("the server failed: {error}")))
}

fn router<S: AdminStore>(args: &ServeArgs, password: Option<Password>, outbox: Outbox<S>) -> Router {
    let (read_only, hide_bodies) = (args.read_only, args.hide_bodies);
    // Without a password, only users of this machine act, usually the one who started it.
    let owner = if password.is_none() { admin::user() } else { None };
    let access = move |request: Parts| {
        let access = if read_only { Access::read() } else { Access::operate() };
        let access = if hide_bodies { access.without_bodies() } else { access };
        let login = request.extensions.get::<User>().map(|User(name)| name);
        let access = match login.filter(|name| !name.is_empty()).or(owner.as_ref()) {
            Some(name) => access.by(name),
            None => access,
        };
        async move { access }
    };
    let mut dashboard = Dashboard::new(outbox).access(access);
    for origin in &args.trusted_origin {
        dashboard = dashboard.trusted_origin(origin);
    }
    let gate = Gate { password, wrong: Mutex::new(()) };
    dashboard.into_router().layer(from_fn_with_state(Arc::new(gate), pass))
}

/// The hash of the password. Hashes have one length, so a comparison shows nothing about the length of the password.
struct Password([u8; 32]);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    fn new(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    fn is(&self, other: &str) -> bool {
        bool::from(self.0.ct_eq(&Self::new(other).0))
    }
}

/// Reads the password: the first line of a file, or an environment variable. An argument would show it to every user of the machine.
fn password(file: Option<&Path>) -> Result<Option<Password>, CliError> {
    let text = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                CliError::runtime(format!("the password file {} cannot be read: {error}", path.display()))
            })?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        None => std::env::var("POSTRIDER_PASSWORD").ok(),
    };
    match text {
        Some(text) if text.is_empty() => Err(CliError::usage("the password is empty")),
        text => Ok(text.as_deref().map(Password::new)),
    }
}

/// What a request must pass before it reaches the dashboard.
struct Gate {
    /// `None` on loopback without a password.
    password: Option<Password>,
    /// A request with a wrong password holds it while it waits.
    wrong: Mutex<()>,
}

/// The user name of a login. It is any name, since there is one password.
#[derive(Clone)]
struct User(String);

async fn pass(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let Some(password) = &gate.password else {
        return match is_loopback_host(request.headers()) {
            true => next.run(request).await,
            false => refuse(
                StatusCode::FORBIDDEN,
                "Without a password, open the dashboard as http://localhost or by its IP address.\n",
            ),
        };
    };
    match login(request.headers()) {
        Some((user, given)) if password.is(&given) => {
            request.extensions_mut().insert(User(user));
            next.run(request).await
        }
        Some(_) => {
            let _turn = gate.wrong.lock().await;
            tokio::time::sleep(WRONG_PASSWORD).await;
            refuse(StatusCode::UNAUTHORIZED, "The password is wrong.\n")
        }
        None => refuse(StatusCode::UNAUTHORIZED, "Log in with any user name and the password.\n"),
    }
}

/// Whether the request names this machine itself.
///
/// A site can let its own name point to 127.0.0.1 and then read what listens there (DNS rebinding). The request then has the site's name.
fn is_loopback_host(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The user name and the password (RFC 7617).
fn login(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, credentials) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let decoded = STANDARD.decode(credentials.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn refuse(status: StatusCode, text: &'static str) -> Response {
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"postrider\", charset=\"UTF-8\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The default of `--listen`.
pub(crate) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_names_of_this_machine_pass_without_a_password() {
        for (host, passes) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1:8080", true),
            ("127.9.9.9", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("", false),
            ("evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("localhost.evil.example", false),
            ("192.0.2.1:8080", false),
            ("localhost:", false),
            ("localhost:8080:80", false),
        ] {
            assert_eq!(is_loopback_host(&headers(header::HOST, host)), passes, "{host}");
        }
        assert!(!is_loopback_host(&HeaderMap::new()));
    }

    #[test]
    fn a_login_is_read_and_its_password_compared() {
        let of = |text: &str| login(&headers(header::AUTHORIZATION, text));
        let basic = format!("basic {}", STANDARD.encode("ada:a:b é"));
        assert_eq!(of(&basic), Some(("ada".to_owned(), "a:b é".to_owned())));
        for bad in ["", "Basic", "Basic !", "Bearer YTpi", "Basic YQ=="] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let password = Password::new("a:b é");
        assert!(password.is("a:b é") && !password.is("a:b") && !password.is(""));
        assert_eq!(format!("{password:?}"), "Password");
    }
}
