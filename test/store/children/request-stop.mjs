// Asks whoever drives a run to stop.
import { RunStore } from "../../../dist/store/run-store.js";

const [path, name] = process.argv.slice(2);
const store = RunStore.open(path, { resume: true });
store.requestStop(store.run(name).id);
store.close();
