// Ends well if stdin, as JSON, is a ServiceMonitor of the Prometheus operator.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

// The packages lie in the folder that is named, below the target directory.
const require = createRequire(process.argv[2] + "/");
const folder = require.resolve("@kubernetes-models/prometheus-operator/package.json").replace("package.json", "");
const { ServiceMonitor } = await import(pathToFileURL(folder + "monitoring.coreos.com/v1/index.js"));
new ServiceMonitor(JSON.parse(readFileSync(0, "utf8"))).validate();
