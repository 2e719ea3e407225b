// What all programs for Node.js do: read the request, import packages from where SLUICE_MODULES says, and tell a refusal in its words.
import {readFileSync, writeFileSync} from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(`${process.env.SLUICE_MODULES}/`);

export async function load(name, entry) {
    return await import(pathToFileURL(entry ? `${process.env.SLUICE_MODULES}/${name}/${entry}` : require.resolve(name)).href);
}

export async function answered(read) {
    const [asked, answer] = process.argv.slice(2);
    const request = JSON.parse(readFileSync(asked, "utf-8"));
    let found;
    try {
        found = await read(request);
    } catch (error) {
        found = {refused: `${error.name}: ${error.message}`};
    }
    writeFileSync(answer, JSON.stringify(found));
    process.exit(0);
}

export function hexadecimal(values) {
    return Buffer.from(Float32Array.from(values).buffer).toString("hex");
}
