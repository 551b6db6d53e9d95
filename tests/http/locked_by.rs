//! Fear: a route that is run under a lock runs twice at once, or leaves its lock behind.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use actix_web::test::{TestRequest, call_service, init_service, read_body, read_body_json};
use actix_web::{App, HttpResponse, web};
use futures_util::FutureExt;
use leasehold::http::{LockedBy, Locks};
use leasehold::{Held, LockError, LockManager};
use serde_json::Value;

fn manager() -> LockManager {
    LockManager::builder().build().unwrap()
}

/// Answers with the key it is run under.
async fn shown(held: web::ReqData<Held>) -> HttpResponse {
    assert!(held.is_held());
    HttpResponse::Ok().body(held.key().to_string())
}

/// An app whose orders are locked.
macro_rules! app_of {
    ($locks:expr, $by:expr) => {{
        let orders = web::resource("/orders/{id}").wrap($by).route(web::get().to(shown));
        init_service(App::new().app_data($locks.clone()).service(orders)).await
    }};
}

async fn key_of(by: LockedBy, request: TestRequest) -> Result<String, (u16, String)> {
    let app = app_of!(manager(), by);
    let answer = call_service(&app, request.to_request()).await;
    let status = answer.status().as_u16();
    if status == 200 {
        return Ok(String::from_utf8(read_body(answer).await.to_vec()).unwrap());
    }
    let problem: Value = read_body_json(answer).await;
    Err((status, problem["code"].as_str().unwrap().to_owned()))
}

#[actix_rt::test]
async fn the_key_is_taken_from_where_it_is_said_to_be() {
    let get = |path: &str| TestRequest::get().uri(path);
    let key = |text: &str| Ok(text.to_owned());
    assert_eq!(key_of(LockedBy::path("id"), get("/orders/42")).await, key("lock:id:42"));
    assert_eq!(key_of(LockedBy::path("id").resource("order"), get("/orders/a%2Fb")).await, key("lock:order:a/b"));
    assert_eq!(key_of(LockedBy::query("user"), get("/orders/42?x=1&user=a+b")).await, key("lock:user:a b"));
    let with_header = get("/orders/42").insert_header(("x-tenant", "t1"));
    assert_eq!(key_of(LockedBy::header("x-tenant"), with_header).await, key("lock:x-tenant:t1"));
    let whole = LockedBy::request(|req| Some(format!("whole {}", req.path())));
    assert_eq!(key_of(whole, get("/orders/42")).await, key("whole /orders/42"));
}

#[actix_rt::test]
async fn a_request_without_its_key_is_refused() {
    let get = |path: &str| TestRequest::get().uri(path);
    let refused = Err((400, "invalid_query".to_owned()));
    assert_eq!(key_of(LockedBy::path("other"), get("/orders/42")).await, refused);
    assert_eq!(key_of(LockedBy::query("user"), get("/orders/42?usr=1")).await, refused);
    assert_eq!(key_of(LockedBy::header("x-tenant"), get("/orders/42")).await, refused);
    assert_eq!(key_of(LockedBy::request(|_| None), get("/orders/42")).await, refused);
    let bad = Err((422, "invalid_key".to_owned()));
    assert_eq!(key_of(LockedBy::query("user"), get("/orders/42?user=a%0Ab")).await, bad);
}

#[actix_rt::test]
async fn a_busy_key_is_423_and_other_keys_go_on() {
    let locks = manager();
    let app = app_of!(locks, LockedBy::path("id").resource("order"));
    let held = locks.try_lock("lock:order:42").owner("batch").await.unwrap();
    let get = |path: &str| TestRequest::get().uri(path).to_request();
    let busy = call_service(&app, get("/orders/42")).await;
    assert_eq!((busy.status().as_u16(), busy.headers().contains_key("retry-after")), (423, true));
    let problem: Value = read_body_json(busy).await;
    assert_eq!((&problem["code"], &problem["holder"]["owner"]), (&"held".into(), &"batch".into()));
    assert_eq!(call_service(&app, get("/orders/43")).await.status(), 200);
    held.unlock().await;
    assert_eq!(call_service(&app, get("/orders/42")).await.status(), 200);
    assert_eq!(locks.stats().active, 0, "released before the answer");
}

#[actix_rt::test]
async fn one_that_waits_gets_its_turn_or_times_out() {
    let locks = manager();
    let by = LockedBy::path("id").wait(Duration::from_secs(30));
    let app = app_of!(locks, by);
    let held = locks.try_lock("lock:id:42").await.unwrap();
    let mut waits = Box::pin(call_service(&app, TestRequest::get().uri("/orders/42").to_request()));
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(locks.stats().waiting, 1);
    held.unlock().await;
    assert_eq!(waits.await.status(), 200);

    let app = app_of!(locks, LockedBy::path("id").wait(Duration::from_millis(1)));
    let _held = locks.try_lock("lock:id:42").await.unwrap();
    let late = call_service(&app, TestRequest::get().uri("/orders/42").to_request()).await;
    let problem: Value = read_body_json(late).await;
    assert_eq!(problem["code"], "timeout");
}

#[actix_rt::test]
async fn the_lock_is_refreshed_while_the_handler_runs_and_ends_with_it() {
    let locks = manager();
    let long = async |held: web::ReqData<Held>, locks: Locks| {
        // Several TTLs, by the lock's own count.
        let key = held.key().clone();
        while locks.inspect(&key).await.unwrap().is_some_and(|info| info.refreshes < 3) {
            actix_rt::time::sleep(Duration::from_millis(5)).await;
        }
        HttpResponse::Ok().body(held.is_held().to_string())
    };
    let by = LockedBy::path("id").ttl(Duration::from_millis(300));
    let app = App::new().app_data(locks.clone()).service(web::resource("/{id}").wrap(by).route(web::get().to(long)));
    let app = init_service(app).await;
    let answer = call_service(&app, TestRequest::get().uri("/1").to_request()).await;
    assert_eq!(read_body(answer).await, "true");
    assert_eq!(locks.stats().active, 0);
}

#[actix_rt::test]
async fn a_handler_that_fails_or_is_dropped_leaves_no_lock() {
    let locks = manager();
    let fails = async || Err::<HttpResponse, LockError>(LockError::QueueFull);
    let hangs = async || std::future::pending::<HttpResponse>().await;
    let app = App::new()
        .app_data(locks.clone())
        .service(web::resource("/fails/{id}").wrap(LockedBy::path("id")).route(web::get().to(fails)))
        .service(web::resource("/hangs/{id}").wrap(LockedBy::path("id")).route(web::get().to(hangs)));
    let app = init_service(app).await;
    let failed = call_service(&app, TestRequest::get().uri("/fails/1").to_request()).await;
    assert_eq!(failed.status(), 429, "an error is the answer that it was");
    assert_eq!(locks.stats().active, 0);
    let mut hanging = Box::pin(call_service(&app, TestRequest::get().uri("/hangs/1").to_request()));
    assert!(hanging.as_mut().now_or_never().is_none());
    assert_eq!(locks.stats().active, 1);
    drop(hanging);
    assert_eq!(locks.stats().active, 0);
}

#[actix_rt::test]
async fn a_hundred_requests_for_one_key_run_one_at_a_time() {
    let locks = manager();
    let (running, runs) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (inside, count) = (Rc::clone(&running), Rc::clone(&runs));
    let handler = move || {
        let (inside, count) = (Rc::clone(&inside), Rc::clone(&count));
        async move {
            assert_eq!(inside.replace(1), 0, "two at once");
            actix_rt::task::yield_now().await;
            count.set(count.get() + 1);
            inside.set(0);
            HttpResponse::Ok().finish()
        }
    };
    let by = LockedBy::path("id").wait(Duration::from_secs(30));
    let app = App::new().app_data(locks.clone()).service(web::resource("/{id}").wrap(by).route(web::get().to(handler)));
    let app = init_service(app).await;
    let all = (0..100).map(|_| call_service(&app, TestRequest::get().uri("/1").to_request()));
    let answers = futures::future::join_all(all).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(runs.get(), 100);
}

#[actix_rt::test]
async fn the_extractor_gives_the_hosts_manager_and_errors_are_problem_documents() {
    let take = async |locks: Locks| -> Result<HttpResponse, LockError> {
        locks.try_lock("a").ttl(Duration::from_secs(9)).ticket().await?;
        Ok(HttpResponse::Ok().finish())
    };
    let locks = manager();
    for app in [App::new().app_data(locks.clone()), App::new().app_data(web::Data::new(locks.clone()))] {
        let app = init_service(app.route("/", web::get().to(take))).await;
        let _ = locks.force_release("a").await;
        let get = || TestRequest::get().uri("/").to_request();
        assert_eq!(call_service(&app, get()).await.status(), 200);
        let busy = call_service(&app, get()).await;
        assert_eq!(busy.headers().get("content-type").unwrap(), "application/problem+json");
        assert_eq!(read_body_json::<Value, _>(busy).await["code"], "held");
    }
    let app = init_service(App::new().route("/", web::get().to(take))).await;
    let none = call_service(&app, TestRequest::get().uri("/").to_request()).await;
    assert_eq!(none.status(), 500);
}
