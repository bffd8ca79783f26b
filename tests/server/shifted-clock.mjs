// Loaded before the program by tests: its clock goes wrong by as much as the test says. Also collects the garbage, so
// that the heap's size says something.

const trueNow = Date.now;
let shift_ms = 0;

globalThis.Date = class extends Date {
  constructor(...args) {
    if (args.length === 0) super(trueNow() + shift_ms);
    else super(...args);
  }

  static now() {
    return trueNow() + shift_ms;
  }
};

process.on("message", (message) => {
  shift_ms = message.shift_ms;
  globalThis.gc();
  process.send("done");
});
// The channel must not keep the program alive.
process.channel.unref();
