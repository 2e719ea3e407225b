// What node-llama-cpp makes of a model on a Hub, which it fetches by its tag.
import {answered, hexadecimal, load} from "./told.mjs";

await answered(async ({uri, folder, text, tokens, most}) => {
    const {getLlama, resolveModelFile, LlamaChatSession, LlamaLogLevel} = await load("node-llama-cpp", "dist/index.js");
    const file = await resolveModelFile(uri, {directory: folder, cli: false});
    const llama = await getLlama({gpu: false, build: "never", skipDownload: true, maxThreads: 1, logLevel: LlamaLogLevel.disabled});
    const model = await llama.loadModel({modelPath: file});
    const context = await model.createContext({contextSize: 512});
    const sequence = context.getSequence();
    const input = tokens.map((token, i) => i + 1 < tokens.length ? token : [token, {generateNext: {probabilities: true, options: {temperature: 1, topK: 0, topP: 1, minP: 0}}}]);
    const next = (await sequence.controlledEvaluate(input)).at(-1).next;
    const probabilities = new Float32Array(Math.max(...next.probabilities.keys()) + 1);
    for (const [token, probability] of next.probabilities) {
        probabilities[token] = Math.log(Math.max(probability, 1e-30));
    }
    await sequence.clearHistory();
    const answer = [];
    for await (const token of sequence.evaluate(tokens, {temperature: 0, yieldEogToken: true})) {
        answer.push(token);
        if (answer.length >= most) break;
    }
    await sequence.clearHistory();
    const session = new LlamaChatSession({contextSequence: sequence});
    const chatHistory = [...session.getChatHistory(), {type: "user", text: "Hello!"}, {type: "model", response: [""]}];
    const prompt = session.chatWrapper.generateContextState({chatHistory}).contextText.toString();
    const bos = model.tokens.shouldPrependBosToken && model.tokens.bos != null ? [model.tokens.bos] : [];
    return {file, prompt, ids: [...bos, ...model.tokenize(text, true)], answer, rows: 1, logits: hexadecimal(probabilities)};
});
