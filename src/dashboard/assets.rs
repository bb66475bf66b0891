//! The style sheet and the scripts. Their names contain a hash of their content, so browsers keep them for a year.

use std::sync::LazyLock;

use axum::extract::RawPathParams;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::page::{self, Problem};

struct Asset {
    name: String,
    etag: HeaderValue,
    content_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, content: &'static str) -> Self {
        let digest = Sha256::digest(content);
        let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        // Never the default: a hash has only hexadecimal digits.
        let etag = HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"0\""));
        Self { name: format!("{stem}-{hash}.{extension}"), etag, content_type, content }
    }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("assets/style.css")));

static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("script", "js", "text/javascript; charset=utf-8", include_str!("assets/script.js")));

/// Only on the page that shows the progress of a bulk change.
static BULK: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("bulk", "js", "text/javascript; charset=utf-8", include_str!("assets/bulk.js")));

pub(super) fn bulk_name() -> String {
    BULK.name.clone()
}

pub(super) fn style_name() -> String {
    STYLE.name.clone()
}

pub(super) fn script_name() -> String {
    SCRIPT.name.clone()
}

pub(super) async fn serve(params: RawPathParams, request: HeaderMap) -> Result<Response, Problem> {
    let name = page::param(&params, "asset");
    let asset = [&STYLE, &SCRIPT, &BULK].into_iter().find(|asset| name == Some(asset.name.as_str()));
    let asset = asset.ok_or(Problem::NoPage)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        // Private, since only those with access get it.
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable")),
        (header::ETAG, asset.etag.clone()),
    ];
    let known = request.get_all(header::IF_NONE_MATCH).iter().any(|etag| etag == asset.etag);
    Ok(match known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, asset.content).into_response(),
    })
}
