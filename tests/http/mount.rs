//! Fear: the routes work in our own binary only.

use actix_web::dev::{Service, ServiceResponse};
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, Error, HttpResponse, web};
use leasehold::LockManager;
use leasehold::http::configure;
use serde_json::{Value, json};

fn manager() -> LockManager {
    LockManager::builder().build().unwrap()
}

fn acquire() -> TestRequest {
    TestRequest::post().uri("/locks/acquire").set_json(json!({ "key": "a" }))
}

async fn answer<S, R>(app: &S, request: R) -> (u16, Value)
where
    S: Service<R, Response = ServiceResponse, Error = Error>,
{
    let answer = call_service(app, request).await;
    (answer.status().as_u16(), read_body_json(answer).await)
}

#[actix_rt::test]
async fn a_scope_serves_the_hosts_manager_given_as_it_is() {
    let locks = manager();
    let app = App::new().app_data(locks.clone()).service(web::scope("/locks").configure(configure));
    let app = init_service(app).await;
    assert_eq!(answer(&app, acquire().to_request()).await.0, 200);
    assert!(locks.is_locked("a").await.unwrap());
    let shown = call_service(&app, TestRequest::get().uri("/locks/locks/a").to_request()).await;
    assert_eq!(shown.status(), 200);
}

#[actix_rt::test]
async fn a_scope_serves_the_hosts_manager_given_as_data() {
    let data = web::Data::new(manager());
    let app = App::new().app_data(data.clone()).service(web::scope("/locks").configure(configure));
    let app = init_service(app).await;
    assert_eq!(answer(&app, acquire().to_request()).await.0, 200);
    assert!(data.is_locked("a").await.unwrap());
}

#[actix_rt::test]
async fn a_host_that_gave_no_manager_is_told_so() {
    let app = init_service(App::new().service(web::scope("/locks").configure(configure))).await;
    let (status, problem) = answer(&app, acquire().to_request()).await;
    assert_eq!((status, &problem["code"]), (500, &json!("internal")));
    let health = call_service(&app, TestRequest::get().uri("/locks/healthz").to_request()).await;
    assert_eq!(health.status(), 200);
}

#[actix_rt::test]
async fn the_routes_beside_a_scope_stay_the_hosts() {
    let app = App::new()
        .app_data(manager())
        .service(web::scope("/locks").configure(configure))
        .default_service(web::to(async || HttpResponse::ImATeapot()));
    let app = init_service(app).await;
    let outside = call_service(&app, TestRequest::get().uri("/elsewhere").to_request()).await;
    assert_eq!(outside.status(), 418);
    let inside = call_service(&app, TestRequest::get().uri("/locks/elsewhere").to_request()).await;
    assert_eq!(inside.status(), 404);
    assert_eq!(read_body_json::<Value, _>(inside).await["code"], "not_found");
}
