// What @huggingface/gguf makes of a GGUF file: its tensors, the label that the Hub prints of its name, and its number of parameters.
import {answered, load} from "./told.mjs";

await answered(async ({file, name}) => {
    const {gguf, parseGGUFQuantLabel, GGMLQuantizationType} = await load("@huggingface/gguf", "dist/index.mjs");
    const {metadata, tensorInfos, parameterCount} = await gguf(file, {allowLocalFile: true, computeParametersCount: true});
    const tensors = tensorInfos.map(({name, dtype, shape}) => (
        {name, type: GGMLQuantizationType[dtype] ?? String(dtype), values: Number(shape.reduce((one, other) => one * other, 1n))}
    ));
    return {label: parseGGUFQuantLabel(name) ?? null, architecture: metadata["general.architecture"], parameters: Number(parameterCount), tensors};
});
