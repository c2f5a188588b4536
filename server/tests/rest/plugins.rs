use crate::kit::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_is_refused_with_the_gates_code() {
    let world = World::new().await;
    let core = wat::parse_str("(module)").unwrap();
    let empty = wat::parse_str("(component)").unwrap();
    for (bytes, code) in [(b"hello".to_vec(), "not-wasm"), (core, "core-module"), (empty, "no-role")] {
        let problem = world.send("PUT", "/plugins/p", &[], bytes.clone()).await;
        assert_eq!(problem.problem(422, "component-refused", Some("body"))["code"], code);
        let problem = world.send("POST", "/plugins/p:check", &[], bytes.clone()).await;
        assert_eq!(problem.problem(422, "component-refused", Some("body"))["code"], code);
        let problem = world.send("POST", "/plugins:check", &[], bytes).await;
        assert_eq!(problem.problem(422, "component-refused", Some("body"))["code"], code);
    }
    let large = world.send("PUT", "/plugins/p", &[], vec![0u8; 9 << 20]).await;
    assert_eq!(large.problem(422, "component-refused", Some("body"))["code"], "too-large");
    world.send("PUT", "/plugins/a%20b", &[], "").await.problem(400, "invalid-field", Some("name"));
    world.get("/plugins/p").await.problem(404, "not-found", Some("plugin"));
    world.delete("/plugins/p").await.problem(404, "not-found", Some("plugin"));
    world.get("/plugins/p/versions/1").await.problem(404, "not-found", Some("plugin"));
}
