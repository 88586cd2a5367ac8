//! Whether the process is alive, and whether it can serve.

use poem::{
    IntoResponse, Response, handler,
    http::StatusCode,
    web::{Data, Json},
};
use serde_json::json;

use crate::Api;

#[handler]
pub(crate) fn alive() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

#[handler]
pub(crate) async fn ready(api: Data<&Api>) -> Response {
    let (broker, store) = tokio::join!(api.broker.ping(), api.store.ping());
    let word = |is_up| if is_up { "ok" } else { "down" };
    let (broker, store) = (broker.is_ok(), store.is_ok());
    let is_ready = broker && store;
    let body = json!({
        "status": word(is_ready), "broker": word(broker), "database": word(store),
    });
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Json(body).with_status(status).into_response()
}
