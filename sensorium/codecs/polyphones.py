"""Polyphones, characters of many sounds: what each is said as when it stands alone, and what its neighbours make of it.

    WORDS     words that pypinyin's dictionary lacks or has otherwise than 现代汉语词典
    ALONE     the commonest sound of a character alone, where pypinyin's first one is another: counted in the development part of
              CPP (Park and Lee, "g2pM", Interspeech 2020, sentences with one labelled character), kept where it won by two or more
              (but for 藏, 薄, 钻 and 扒, whose daily sound is not that of the encyclopedia the sentences come from)
    BESIDE    patterns around a character and the sound it takes there
    SURNAMES  characters that sound otherwise as a surname
"""

from __future__ import annotations

import re

__all__ = ["ALONE", "BESIDE", "SPLIT", "SURNAMES", "WORDS"]


def _table(text: str) -> dict[str, str]:
    return {item[0]: item[1:] for item in text.split()}


def _words(text: str) -> dict[str, list[str]]:
    return {word: said.split(".") for word, said in (item.split("=") for item in text.split())}


WORDS = _words("""
    大夫=dai4.fu5 士大夫=shi4.da4.fu1 投行=tou2.hang2 同行=tong2.hang2 朝鲜=chao2.xian3 北朝鲜=bei3.chao2.xian3 蒙古=meng3.gu3
    内蒙古=nei4.meng3.gu3 内蒙=nei4.meng3 高句丽=gao1.gou1.li2 可汗=ke4.han2 弟弟=di4.di5 肚子=du4.zi5 钻井=zuan1.jing3 夺得=duo2.de2
    运转=yun4.zhuan3 高差=gao1.cha1 方差=fang1.cha1 相差=xiang1.cha1 反差=fan3.cha1 落差=luo4.cha1 偏差=pian1.cha1 薄膜=bo2.mo2
    后燕=hou4.yan1 南燕=nan2.yan1 埃塞俄比亚=ai1.sai4.e2.bi3.ya4 夹克=jia1.ke4 一晃=yi1.huang4 眩晕=xuan4.yun4 咳咳=ke2.ke2 吡咯=bi3.luo4
    呵叻=he1.le4 率部=shuai4.bu4 姥姥=lao3.lao5 用不着=yong4.bu4.zhao2 够不着=gou4.bu4.zhao2 睡不着=shui4.bu4.zhao2 找不着=zhao3.bu4.zhao2
    塞进=sai1.jin4 塞满=sai1.man3 塞住=sai1.zhu4 塞给=sai1.gei3 塞车=sai1.che1 勒死=lei1.si3 勒紧=lei1.jin3 粘贴=zhan1.tie1 粘上=zhan1.shang4
    粘在=zhan1.zai4 粘住=zhan1.zhu4 咽下=yan4.xia4 咽了=yan4.le5 行行=hang2.hang2 数数=shu3.shu4 还钱=huan2.qian2 还书=huan2.shu1
    这么着=zhe4.me5.zhe5 什么=shen2.me5 数一数=shu3.yi1.shu3 量一量=liang2.yi1.liang2 藏人=zang4.ren2 川藏=chuan1.zang4 驻藏=zhu4.zang4
    青藏=qing1.zang4 藏军=zang4.jun1 长头发=chang2.tou2.fa5 似的=shi4.de5
""")
SPLIT = {f"{verb}得" for verb in "跑走说做写吃长飞来去玩睡学看听唱跳画打变站坐穿过弄"} | {f"很{each}" for each in "长重好少多差"} | {"一行"}

ALONE = _table("""
    阆lang4 艮gen4 町ting3 炔que1 晟sheng4 掖ye4 剌la4 掺chan1 蛤ge2 帖tie3 塞sai4 耶ye1 缪miu4 媛yuan2 勒le4 鲜xian1 翟zhai2 攒cuan2 卜bu3 镐hao4
    肖xiao1 仆pu2 什shi2 隗wei3 杓shao2 幢zhuang4 子zi3 俟si4 葛ge3 舍she4 粘nian2 杠gang4 隽jun4 藉jie4 琢zhuo2 哩li3 茄qie2 拽zhuai4 伺si4 为wei2
    茜xi1 纥he2 姥mu3 卷juan4 迤yi3 椎zhui1 峒tong2 尽jin4 刹cha4 裨pi2 苕tiao2 燕yan1 泊bo2 哇wa1 鹄hu2 长chang2 铣xian3 耙pa2 瑱tian4 朴piao2
    曲qu3 巂xi1 咽yan1 佛fo2 阙que4 蠡li3 芾fu2 脯fu3 煞sha4 拧ning3 钉ding4 轧zha2 晃huang4 抡lun2 圜yuan2 哟yo5 吒zha4 切qie1 颉xie2 靓liang4
    阏yan1 锔ju2 酢zuo4 蕃bo1 缊yun4 窨yin4 沓ta4 氓meng2 徼jiao4 崴wei1 埏yan2 嗯en1 啦la1 倒dao3 率lv4 挣zheng4
""")

_COUNT = "一二两三四五六七八九十百千万几每整数半多这那"
BESIDE = {letter: [(re.compile(pattern), said) for pattern, said in rules] for letter, rules in {
    "行": [(f"(?<=[{_COUNT}末首])行(?!人|程|动|走)", "hang2"), (r"(?<=[本该贵支总央投分商银洋])行", "hang2"), (r"行(?=业|长|列|情)", "hang2")],
    "长": [(r"(?<![很太多不更最较好么过加])长(?=[得出高大胖成满着肉相])", "zhang3"), (r"长了?(?=[一两几]?[颗根条个](?:[毛草痘角]|白发))", "zhang3"),
           (r"(?<=[部处校局院市县州区乡镇村组排连营团师社馆所队船厅科董会])长(?![期久短度远城江大途跑])", "zhang3")],
    "还": [(r"还(?=[书钱债清款贷账欠]|[我你他她]们?的?(?:钱|书|债|清白|自由|公道))", "huan2"), (r"(?<=[归偿退送奉])还", "huan2"),
           (r"(?<=[要该去得来能])还(?=$|了)", "huan2")],
    "重": [(r"重(?=[写做来试装启建读考印组置排修说走拍演申购塑返聚获洗绘译编刷连])", "chong2"),
           (r"(?<=[一二两三四五六七八九十几多双])重(?![要点量大达约于])", "chong2")],
    "种": [(f"(?<![{_COUNT}各何某此品])种(?=[树花菜地田草植瓜豆粮稻麦果葡满着上了])", "zhong4")],
    "教": [(r"(?<![宗佛道主请传邪儒回基督信新旧])教(?=[我你他她书孩英中汉语数课给小人]|学生)", "jiao1")],
    "背": [(r"(?<![后脊手靠驼前腰])背(?=[着起包负])", "bei1")],
    "中": [(r"(?<=[命击射猜])中", "zhong4"), (r"中(?=[奖毒弹暑计枪标彩邪])", "zhong4")],
    "相": [(r"(?<=[照真长首丞宰洋])相", "xiang4")],
    "系": [(r"系(?=[好紧着鞋领围]|上[鞋领围安])", "ji4")],
    "只": [(f"(?<=[{_COUNT}])只(?![有要能是不好会得想剩用])", "zhi1")],
    "数": [(r"(?<![人总分次函参岁指倍对个多少复整小奇偶系基])数(?=着|到[一二三四五六七八九十]|一数|一下|不清|不胜|得清)", "shu3"),
           (r"(?<=数一)数", "shu3")],
    "量": [(r"量(?=[体血尺]|一量|一下)", "liang2"), (r"(?<=量一)量", "liang2")],
    "差": [(r"(?<=[出公])差", "chai1"), (r"(?<=[高方相反落偏温时逆顺价级像])差(?!不|点|一|得|异)", "cha1")],
    "为": [(r"为(?=什么|何|了|[我你他她它您咱]|人民|大家|此|民|自己|孩子|客户)", "wei4"),
           (r"为(?=.{1,8}(?:服务|祈祷|欢呼|加油|担心|着想|奋斗|争光))", "wei4")],
    "发": [(r"(?<=[头理白长短金黑卷染秀剪假洗护])发(?![现生展出达明布射挥行育言])", "fa4"), (r"发(?=[型廊丝夹际髻])", "fa4")],
    "干": [(r"(?<=[晒晾烘风擦吹烤吸])干", "gan1")],
    "假": [(r"(?<=[放请休病事产寒暑年婚])假", "jia4"), (r"假(?=期|日|条)", "jia4")],
    "传": [(r"(?<=[自别外列浒蛇经左])传", "zhuan4")],
    "曲": [(r"曲(?=[折线面率解直])", "qu1"), (r"(?<=[弯歪扭蜷])曲", "qu1")],
    "处": [(r"处(?=[理于在罚境死置方])", "chu3"), (r"(?<=[相独共])处", "chu3")],
    "当": [(r"(?<=[上典])当", "dang4"), (r"当(?=[作成做铺真])", "dang4")],
    "倒": [(r"倒(?=[车水茶酒映影贴退挂立是也不垃数计])", "dao4"), (r"(?<=反)倒", "dao4")],
    "更": [(r"更(?=[换改新衣正名替])", "geng1"), (r"(?<=[三五半变])更", "geng1")],
    "应": [(r"(?<=[反响呼适感回答供对相效])应", "ying4"), (r"应(?=[邀试聘付对战届用])", "ying4")],
    "划": [(r"划(?=[船水桨艇拳算])", "hua2")],
    "露": [(r"露(?=[馅面脸头怯富])", "lou4")],
    "空": [(r"(?<=[有没抽得])空(?=$|时|再|了|吗)", "kong4"), (r"空(?=[白位地缺闲隙格])", "kong4")],
    "乐": [(r"(?<=[音器奏声民弦管])乐", "yue4"), (r"乐(?=[队器曲谱团坛章手])", "yue4")],
    "散": [(r"散(?=[文装漫打架])", "san3")],
    "兴": [(r"兴(?=[奋起建旺盛隆办修衰])", "xing1")],
    "卡": [(r"卡(?=住|脖|壳|在)", "qia3")],
    "称": [(r"(?<=[对匀相])称", "chen4")],
    "铺": [(r"铺(?=[床路着满开设])", "pu1")],
    "晕": [(r"晕(?=车|船)", "yun4")],
    "转": [(r"(?<=[打团自])转", "zhuan4"), (r"转(?=[圈盘速悠椅])", "zhuan4")],
    "载": [(r"载(?=入)", "zai3")],
    "累": [(r"累(?=[计积加年次])", "lei3")],
    "盛": [(r"盛(?=[饭汤菜满水])", "cheng2")],
    "圈": [(r"(?<=[猪羊牛马])圈", "juan4")],
    "率": [(r"率(?=[领先队军兵众部团])", "shuai4"), (r"(?<=[军督卫统])率", "shuai4")],
    "着": [(r"(?<=[睡找点够猜捉])着", "zhao2"), (r"(?<=不)着(?!急)", "zhao2"), (r"着(?=[火急凉迷慌魔])", "zhao2")],
    "了": [(r"(?<=[受做办去来吃走好到跑拿用少免忍变忘改治得]不)了(?!解)", "liao3"), (r"(?<=[受做办去来吃走好到跑拿用少免忍]得)了", "liao3")],
    "啦": [(r"啦$", "la5")], "哇": [(r"哇$", "wa5")],
}.items()}

SURNAMES = _table("曾zeng1 单shan4 解xie4 任ren2 华hua4 仇qiu2 区ou1 查zha1 盖ge3 朴piao2 乐yue4 翟zhai2 覃qin2 宁ning4 缪miao4 折she2 员yun4 秘bi4")
