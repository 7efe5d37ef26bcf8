//! A control plane that ends in the middle of a pull.

use super::*;

impl Bench {
    /// Everything of this process goes at once, wherever it is; another one is begun on what it left.
    async fn die(mut self) -> Self {
        self.driver.shutdown().await;
        let Self { memory, store, files, folder, .. } = self;
        drop(store);
        Self::open(folder, files, memory).await
    }

    /// Files that are there, below a folder of the store.
    fn files_in(&self, folder: &str) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            let one = |path: std::path::PathBuf| if path.is_dir() { count(&path) } else { 1 };
            entries.map(|entry| one(entry.expect("readable").path())).sum()
        }
        count(&self.folder.path().join("store").join(folder))
    }
}

#[tokio::test]
async fn half_a_pull_leaves_no_version_and_is_taken_up_again_by_the_next_control_plane() {
    let bench = Bench::start().await;
    bench.files.set_stalling(true);
    let one = bench.declare("1");
    bench
        .until("half of it has arrived", |observed| {
            let condition = observed.objects.get(&one)?.status.condition("Pulled")?;
            condition.message.starts_with("50 %").then_some(())
        })
        .await;
    let asked = bench.files.asked();

    let next = bench.die().await;
    assert_eq!(next.versions(), [""; 0], "half a version is none");
    assert_eq!((next.files_in("chunks"), next.files_in("scratch")), (0, 0), "nor is anything of it kept");
    // The object still says what is wished for, and that is enough.
    next.files.set_stalling(false);
    let done = next.condition(&one, "Pulled", "Pulled").await;
    assert!(next.files.asked() > asked, "{done}");
    assert_eq!(next.versions(), ["1"]);
    assert!(next.files_in("chunks") > 0);
}
