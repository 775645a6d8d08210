// Runs Azurite's table service until its standard input ends, which it does when the test that started it ends,
// however that happens. Run with the folder of the installation as the working directory.
const net = require("net");

process.stdin.on("end", () => process.exit(0));
process.stdin.resume();

// With port 0 it listens on a free one, and does not say which.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
  this.once("listening", () => console.log(`port ${this.address().port}`));
  return listen.apply(this, args);
};

require(require.resolve("azurite/dist/src/table/main.js", { paths: [process.cwd()] }));
