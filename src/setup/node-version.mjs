// The oldest Node that everything here runs on, the one place besides "engines" in package.json that says so.
// Must be parsed by every Node that knows ES modules: set-up and the program read this before they read anything else.

const oldestNode = [20, 19];

/** Whether `version` ("20.19.0") is at least {@link oldestNode}. */
export function nodeIsNewEnough(version) {
  const [major, minor] = version.split(".").map(Number);
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1]);
}

/** What to say of a Node that is not. */
export function oldNodeComplaint(version) {
  return `got Node ${version}, need ${oldestNode.join(".")} or newer; install a current Node and try again`;
}
