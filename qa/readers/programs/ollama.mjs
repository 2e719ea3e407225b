// Which Go template @huggingface/ollama-utils makes of a chat template, as the Hub does for Ollama where a repo has none.
import {answered, load} from "./told.mjs";

await answered(async (request) => {
    const {convertGGUFTemplateToOllama} = await load("@huggingface/ollama-utils", "dist/index.mjs");
    const found = convertGGUFTemplateToOllama(request);
    return {template: found?.ollama?.template ?? null, from: found?.model ?? null, stop: found?.ollama?.params?.stop ?? []};
});
