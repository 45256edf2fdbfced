#[test]
fn render() {
    let folder = tempfile::tempdir().unwrap();
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/demo");
    let experiment = super::fixture::experiment(folder.path(), &source, ["motherlode", "naive top-k"]);
    super::report(&experiment, std::path::Path::new("/work/scratch/report-demo")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = super::fixture::source(folder.path());
    let experiment = super::fixture::experiment(folder.path(), &source, ["motherlode", super::fixture::HOSTILE]);
    super::report(&experiment, std::path::Path::new("/work/scratch/report-hostile")).unwrap();
}
